{{- define "perjoule.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- end }}

{{- define "perjoule.labels" -}}
app.kubernetes.io/name: perjoule
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What each of our containers may do: nothing. */}}
{{- define "perjoule.rights" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where the sidecar's joules come from. */}}
{{- define "perjoule.energy" -}}
{{- if .Values.sidecar.energy }}{{ .Values.sidecar.energy }}
{{- else if .Values.meter.enabled }}meter:{{ .Release.Name }}-meter:9465
{{- else }}{{ fail "sidecar.energy: got nothing and meter.enabled false, expected a source, as meter:OTHER-meter.NAMESPACE:9465" }}
{{- end }}
{{- end }}

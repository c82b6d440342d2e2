// Draws a dashboard (window.GIVEN: its JSON, and what a Prometheus answered to each question) with Grafana's own components.
import { createTheme, dateTime, fieldMatchers, FieldType, getDisplayProcessor, LoadingState, standardTransformers,
         standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame } from "@grafana/data";
import { VizOrientation } from "@grafana/schema";
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from "@grafana/ui";
import React from "react";
import { createRoot } from "react-dom/client";

const { board, answers, from, to } = window.GIVEN;
const theme = createTheme({ colors: { mode: "light" } });
const [TITLE, MARGIN, ROW] = [48, 12, 30];
const COLUMN = (window.innerWidth - 2 * MARGIN) / 24;

standardTransformersRegistry.setInit(() => [
  { id: "merge", name: "merge", transformation: standardTransformers.mergeTransformer },
  { id: "organize", name: "organize", transformation: standardTransformers.organizeFieldsTransformer },
]);

function configured(panel, field, frame) {
  field.config = { color: { mode: "palette-classic" }, ...panel.fieldConfig.defaults, ...field.config };
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    if (fieldMatchers.get(matcher.id).get(matcher.options)(field, frame, [frame])) {
      for (const { id, value } of properties) field.config[id] = value;
    }
  }
  field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
}

// A frame for each series, named by the legend.
function framesOf(panel) {
  let seriesIndex = 0;
  return panel.targets.flatMap((target, place) => answers[panel.id][place].map(({ metric, value, values = [value] }) => {
    const displayName = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? "") || "Value";
    const frame = toDataFrame({ refId: target.refId, fields: [
      { name: "Time", type: FieldType.time, values: values.map(([at]) => at * 1000) },
      { name: "Value", type: FieldType.number, values: values.map(([, text]) => (text === "NaN" ? null : Number(text))), labels: metric,
        config: { displayName } },
    ] });
    frame.fields[1].state = { seriesIndex: seriesIndex++, displayName };
    frame.fields.forEach((field) => configured(panel, field, frame));
    return frame;
  }));
}

function Drawn({ panel, width, height }) {
  const frames = framesOf(panel);
  if (frames.length === 0) return panel.fieldConfig.defaults.noValue;
  if (panel.type === "timeseries") {
    const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: "", to: "" } };
    return <TimeSeries frames={frames} timeRange={range} timeZone="utc" width={width} height={height}
      legend={{ calcs: [], ...panel.options.legend }} options={{}} />;
  }
  const fields = frames.map(({ fields: [, field] }) => field);
  const shown = fields.map((field) => ({ ...field.display(field.values.at(-1)), title: field.state.displayName }));
  if (panel.type === "stat") {
    return <div style={{ display: "flex" }}>{shown.map((value) => <BigValue key={value.title} value={value} theme={theme}
      width={width / shown.length} height={height} {...panel.options} />)}</div>;
  }
  if (panel.type === "bargauge") {
    const max = Math.max(...shown.map(({ numeric }) => numeric));
    return shown.map((value, place) => <BarGauge key={place} value={value} theme={theme} width={width} height={height / shown.length}
      field={{ ...fields[place].config, min: 0, max }} display={fields[place].display}
      {...panel.options} orientation={VizOrientation.Horizontal} />);
  }
  return <em>A {panel.type}, which Grafana keeps to itself.</em>;
}

// The answers of instant queries as Grafana's data source makes tables of them, through the panel's transformations.
function Tabled({ panel, width, height }) {
  const [frame, show] = React.useState(null);
  React.useEffect(() => {
    const frames = panel.targets.map(({ refId }, place) => {
      const rows = answers[panel.id][place];
      const labels = [...new Set(rows.flatMap(({ metric }) => Object.keys(metric)))];
      return toDataFrame({ refId, fields: [
        { name: "Time", type: FieldType.time, values: rows.map(({ value }) => value[0] * 1000) },
        ...labels.map((name) => ({ name, type: FieldType.string, values: rows.map(({ metric }) => metric[name]) })),
        { name: `Value #${refId}`, type: FieldType.number, values: rows.map(({ value }) => Number(value[1])) },
      ] });
    });
    const going = transformDataFrame(panel.transformations, frames).subscribe(([merged]) => {
      merged.fields.forEach((field) => configured(panel, field, merged));
      show(merged);
    });
    return () => going.unsubscribe();
  }, []);
  return frame === null ? null : <Table data={frame} width={width} height={height} columnMinWidth={70} />;
}

function Board() {
  const rows = Math.max(...board.panels.map(({ gridPos: { y, h } }) => y + h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: "relative", height: TITLE + rows * ROW + 8, background: theme.colors.background.canvas }}>
        <h1 style={{ padding: "12px 16px 0", fontSize: 20 }}>{board.title}</h1>
        {board.panels.map((panel) => {
          const { x, y, w, h } = panel.gridPos;
          const Inside = panel.type === "table" ? Tabled : Drawn;
          return (
            <div key={panel.id} style={{ position: "absolute", left: MARGIN + x * COLUMN, top: TITLE + y * ROW }}>
              <PanelChrome title={panel.title} width={w * COLUMN - 8} height={h * ROW - 8} loadingState={LoadingState.Done}>
                {(width, height) => <Inside panel={panel} width={width} height={height} />}
              </PanelChrome>
            </div>
          );
        })}
      </div>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById("root")).render(<Board />);

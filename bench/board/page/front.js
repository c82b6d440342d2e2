// Which configurations are worth having: the Pareto front, and the least energy within a deadline and a budget.

// a dominates b: no worse in both, better in one. Equal points dominate neither each other nor themselves.
const dominates = (a, b) => a.x <= b.x && a.y <= b.y && (a.x < b.x || a.y < b.y);

// The points that no other dominates, by x; of equal points, all. One pass over points sorted by x, then y.
function paretoFront(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const front = [];
  let best = Infinity;
  for (let at = 0; at < sorted.length;) {
    const { x, y } = sorted[at]; // the lowest of its x
    let next = at;
    while (next < sorted.length && sorted[next].x === x) next += 1;
    if (y < best) {
      for (let same = at; same < next && sorted[same].y === y; same += 1) front.push(sorted[same]);
      best = y;
    }
    at = next;
  }
  return front;
}

const least = (rows, key) => rows.reduce((best, row) => (best === null || row[key] < best[key] ? row : best), null);
const most = (rows, key) => rows.reduce((best, row) => (best === null || row[key] > best[key] ? row : best), null);

// Per model: the least energy per token among what meets both limits, and what it saves against the model's fastest and dearest.
function recommend(rows, latencyKey, deadline, budget) {
  const energyKey = "energy_per_output_token_j";
  const models = Map.groupBy(
    rows.filter((row) => known(row[energyKey]) && known(row[latencyKey])),
    (row) => row.model_id,
  );
  const found = [...models].map(([model, mine]) => {
    const best = least(
      mine.filter((row) => row[latencyKey] <= deadline && row[energyKey] <= budget),
      energyKey,
    );
    const saving = (other) => (best && other ? 1 - best[energyKey] / other[energyKey] : null);
    const fastest = least(mine, latencyKey),
      dearest = most(mine, energyKey);
    return { model, best, fastest, dearest, againstFastest: saving(fastest), againstDearest: saving(dearest) };
  });
  return found.sort(
    (a, b) => (a.best?.[energyKey] ?? Infinity) - (b.best?.[energyKey] ?? Infinity) || String(a.model).localeCompare(b.model),
  );
}

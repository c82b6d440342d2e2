// Grafana imports the default of this CommonJS module, which only some bundlers give it.
import * as all from "./node_modules/react-custom-scrollbars-2/lib/index.js";

export default all.Scrollbars ?? all.default.Scrollbars;

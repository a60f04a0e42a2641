// USERS=1000 k6 run bench/k6/users.js: so many people for a minute, the seed table's rows.
// MIX: cached (one question), mixed (Zipf, the default) or uncached (each asked once).
import { ask, fresh, same, think, thresholds, zipf } from "./lib.js";

const users = Number(__ENV.USERS || 100);
const pick = { cached: same, mixed: zipf, uncached: fresh }[__ENV.MIX || "mixed"];

export const options = {
  scenarios: {
    users: { executor: "constant-vus", vus: users, duration: __ENV.DURATION || "60s" },
  },
  thresholds,
};

export default function () {
  ask(pick());
  think();
}

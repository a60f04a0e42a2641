// k6 run bench/k6/spike.js: 100 users, suddenly 2,000, and back.
import { ask, think, thresholds, zipf } from "./lib.js";

export const options = {
  scenarios: {
    spike: {
      executor: "ramping-vus",
      startVUs: 100,
      stages: [
        { duration: "20s", target: 100 },
        { duration: "2s", target: 2000 },
        { duration: "30s", target: 2000 },
        { duration: "2s", target: 100 },
        { duration: "20s", target: 100 },
      ],
    },
  },
  thresholds,
};

export default function () {
  ask(zipf());
  think();
}

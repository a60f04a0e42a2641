// k6 run bench/k6/soak.js: 500 users for half an hour, some of whom read streams.
import { ask, think, thresholds, zipf } from "./lib.js";

export const options = {
  vus: Number(__ENV.USERS || 500),
  duration: __ENV.DURATION || "30m",
  thresholds: { ...thresholds, ragserve_failed: ["rate<0.001"] },
};

export default function () {
  ask(zipf(), Math.random() < 0.1 ? { stream: true } : {});
  think();
}

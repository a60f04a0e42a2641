// k6 run bench/k6/ingest.js: 200 users ask while documents come in, five a second.
import http from "k6/http";
import { check } from "k6";
import { URL, ask, headers, think, thresholds, zipf } from "./lib.js";

export const options = {
  scenarios: {
    users: { executor: "constant-vus", vus: 200, duration: "60s", exec: "users" },
    ingest: {
      executor: "constant-arrival-rate",
      rate: 5,
      timeUnit: "1s",
      duration: "60s",
      preAllocatedVUs: 10,
      exec: "ingest",
    },
  },
  thresholds: { ...thresholds, checks: ["rate>0.99"] },
};

export function users() {
  ask(zipf());
  think();
}

export function ingest() {
  const text = `Notice ${__VU}-${__ITER}. ${"The pier is closed for repairs until Monday. ".repeat(40)}`;
  const body = JSON.stringify({ id: `k6-${__VU}-${__ITER}`, collection: "k6", text });
  const response = http.post(`${URL}/v1/documents`, body, { headers });
  check(response, { "document is taken": (r) => r.status === 202 });
}

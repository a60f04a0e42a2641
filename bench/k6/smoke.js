// k6 run bench/k6/smoke.js: does it answer at all? Five users, ten seconds, no error allowed.
import http from "k6/http";
import { check } from "k6";
import { URL, ask, think, zipf } from "./lib.js";

export const options = {
  vus: 5,
  duration: "10s",
  thresholds: { ragserve_failed: ["rate==0"], checks: ["rate==1"] },
};

export default function () {
  check(http.get(`${URL}/health`), { "health is 200": (r) => r.status === 200 });
  ask(zipf());
  ask(zipf(), { stream: true });
  think();
}

// What all scenarios share: settings by environment, the questions, one ask, its metrics.
//
//   URL         http://127.0.0.1:8080
//   KEY         API key, if the server wants one
//   COLLECTION  default
//   QUESTIONS   a queries.jsonl ({"text": …} a line); ../questions.jsonl
//   THINK       mean seconds between a user's questions; 0.5
import http from "k6/http";
import { check, sleep } from "k6";
import { SharedArray } from "k6/data";
import { Rate, Trend } from "k6/metrics";

export const URL = __ENV.URL || "http://127.0.0.1:8080";
const COLLECTION = __ENV.COLLECTION || "default";
const THINK = Number(__ENV.THINK || 0.5);

export const headers = { "Content-Type": "application/json" };
if (__ENV.KEY) headers.Authorization = `Bearer ${__ENV.KEY}`;

const questions = new SharedArray("questions", () =>
  open(__ENV.QUESTIONS || "../questions.jsonl")
    .split("\n")
    .filter((line) => line.trim())
    .map((line) => JSON.parse(line).text),
);

// Zipf(1): the k-th question is asked 1/k as often as the first.
const sums = [];
questions.forEach((_, index) => sums.push((sums[index - 1] || 0) + 1 / (index + 1)));

export function zipf() {
  const point = Math.random() * sums[sums.length - 1];
  return questions[sums.findIndex((sum) => sum >= point)];
}

export function fresh() {
  return `${questions[Math.floor(Math.random() * questions.length)]} (${__VU}-${__ITER})`;
}

export function same() {
  return questions[0];
}

export const failed = new Rate("ragserve_failed");
export const answered = new Trend("ragserve_answer_ms", true);
// k6 reads a stream to its end; its wait for the first byte is what a reader waits for the sources,
// which is why it is measured on streamed answers only.
export const firstToken = new Trend("ragserve_first_token_ms", true);

export function ask(question, fields = {}) {
  const body = JSON.stringify({ query: question, collection: COLLECTION, ...fields });
  const response = http.post(`${URL}/v1/query`, body, { headers, timeout: "60s" });
  const good = check(response, { "status is 200": (r) => r.status === 200 });
  failed.add(!good);
  answered.add(response.timings.duration);
  if (fields.stream) firstToken.add(response.timings.waiting);
  return response;
}

export function think() {
  if (THINK > 0) sleep(THINK * (0.5 + Math.random()));
}

export const thresholds = {
  ragserve_failed: ["rate<0.05"],
  ragserve_answer_ms: ["p(95)<200"],
};

// The crowd of a flash sale: a calm beginning, a rush, a storm, and the end of it.
//
//   k6 run -e TARGET=http://127.0.0.1:3000 -e ROUTE=/api/v1/buy benchmarks/k6/spike.js
//
// ROUTE is one of the generations of `yoink-lab serve` (/api/v1/buy to /api/v4/buy), or /buy of a real `yoink serve`.
// PRODUCT is the product's id (1), SCALE makes the crowd smaller or larger (1), SECONDS the whole of it (55).

import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const target = __ENV.TARGET || 'http://127.0.0.1:3000';
const route = __ENV.ROUTE || '/api/v1/buy';
const product = __ENV.PRODUCT || '1';
const scale = Number(__ENV.SCALE || '1');
const seconds = Number(__ENV.SECONDS || '55');

const accepted = new Counter('yoink_accepted');
const soldOut = new Counter('yoink_sold_out');
const failed = new Counter('yoink_failed');

const rate = (perSecond) => Math.max(1, Math.round(perSecond * scale));
const part = (share) => `${Math.max(1, Math.round(seconds * share))}s`;

export const options = {
  scenarios: {
    spike: {
      executor: 'ramping-arrival-rate',
      startRate: rate(50),
      timeUnit: '1s',
      preAllocatedVUs: rate(500),
      maxVUs: rate(1000),
      stages: [
        { target: rate(50), duration: part(0.18) },
        { target: rate(300), duration: part(0.09) },
        { target: rate(300), duration: part(0.18) },
        { target: rate(1000), duration: part(0.09) },
        { target: rate(1000), duration: part(0.37) },
        { target: rate(0), duration: part(0.09) },
      ],
    },
  },
  // Every refusal is an answer, and every 5xx a finding that the run shows; neither fails the run itself.
  thresholds: { checks: ['rate==1'] },
  summaryTrendStats: ['avg', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
};

// Other buyers in every run, so that nobody is answered as a repeat of the run before.
export function setup() {
  return { run: __ENV.RUN || Date.now().toString(36) };
}

export default function ({ run }) {
  // Everybody buys once.
  const buyer = `k6-${run}-${__VU}-${__ITER}`;
  const body = JSON.stringify({ userId: buyer, productId: product });
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': buyer };
  const answer = http.post(`${target}${route}`, body, { headers, tags: { route } });
  if (answer.status === 201 || answer.status === 202) {
    accepted.add(1);
  } else if (answer.status === 400 || answer.status === 409) {
    soldOut.add(1);
  } else {
    failed.add(1);
  }
  check(answer, { 'is an answer in JSON': (response) => response.status > 0 && response.json() !== undefined });
}

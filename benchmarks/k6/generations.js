// Buyers of the older system: their ids are numbers, and they send no idempotency key.
//
//   k6 run -e TARGET=http://127.0.0.1:3000 -e VERSION=1 benchmarks/k6/generations.js
//
// TARGET is a `yoink-lab serve`, VERSION the generation behind /api/vN/buy (1 to 4), PRODUCT the product's id (1). BUYERS is
// how many come (1000), AT_ONCE how many of them buy at the same time (100). Every answer is held against what that
// generation answers in the older system.

import exec from 'k6/execution';
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const target = __ENV.TARGET || 'http://127.0.0.1:3000';
const version = Number(__ENV.VERSION || '1');
const product = Number(__ENV.PRODUCT || '1');

const route = `/api/v${version}/buy`;
// The first two have sold when they answer. So has the third, but its status is that of the fourth, which only promises.
const yes = version < 3 ? 201 : 202;
const no = 400;

const accepted = new Counter('yoink_accepted');
const soldOut = new Counter('yoink_sold_out');
const failed = new Counter('yoink_failed');

// A no is an answer; what k6 counts as failed is everything else.
http.setResponseCallback(http.expectedStatuses(yes, no));

export const options = {
  scenarios: {
    buyers: {
      executor: 'shared-iterations',
      vus: Number(__ENV.AT_ONCE || '100'),
      iterations: Number(__ENV.BUYERS || '1000'),
      maxDuration: '60s',
    },
  },
  // The third generation fails by design, so statuses from 500 are counted and do not fail the run.
  thresholds: { checks: ['rate==1'] },
  summaryTrendStats: ['avg', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
};

const isText = (value) => typeof value === 'string' && value.length > 0;

function tellsOfTheOrder(body, userId) {
  if (version === 4) {
    return body.message === 'Order accepted for processing';
  }
  const { placedOrder, updatedProduct } = body;
  // Ids may come back as text.
  const isTheirs = Number(placedOrder.userId) === userId && Number(placedOrder.productId) === product;
  const isOfProduct = Number(updatedProduct.id) === product && Number.isInteger(updatedProduct.stock);
  return isTheirs && isOfProduct && placedOrder.id !== undefined;
}

export default function () {
  const userId = exec.scenario.iterationInTest + 1;
  const body = JSON.stringify({ userId, productId: product });
  const answer = http.post(`${target}${route}`, body, { headers: { 'Content-Type': 'application/json' } });
  check(answer, { 'it is a yes, a no or a failure': ({ status }) => status === yes || status === no || status >= 500 });
  if (answer.status === yes) {
    accepted.add(1);
    check(answer, { 'a yes tells of the order': (response) => tellsOfTheOrder(response.json(), userId) });
    return;
  }
  const isNo = answer.status === no;
  (isNo ? soldOut : failed).add(1);
  const tells = ({ error, message }) => isText(error) && isText(message);
  const said = isNo ? 'a no tells why' : 'a failure tells why';
  check(answer, { [said]: (response) => tells(response.json()) });
}

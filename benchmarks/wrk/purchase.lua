-- One purchase per request, each by another customer and with another key.
-- wrk ... -s purchase.lua URL -- PRODUCT RUN
local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(arguments)
  local product, run = arguments[1], arguments[2]
  number = 0
  name = run .. "-" .. thread_number .. "-"
  head = "POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nIdempotency-Key: key-"
  tail = '","product_id":"' .. product .. '","quantity":1}'
end

function request()
  number = number + 1
  local body = '{"customer_id":"' .. name .. number .. tail
  return head .. name .. number .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end

-- Sends the requests of a file in random order and counts the answers that are not as expected.
-- wrk … -s wrk.lua http://127.0.0.1:PORT -- FILE EXPECTED    (requests in FILE are separated by zero bytes)

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  requests = {}
  for one in file:read("*a"):gmatch("%Z+") do
    requests[#requests + 1] = one
  end
  file:close()
  expected, wrong, example = args[2], 0, ""
end

function request()
  return requests[math.random(#requests)]
end

function response(status, _, body)
  if status ~= 200 or not body:find(expected, 1, true) then
    wrong, example = wrong + 1, status .. " " .. body:sub(1, 200)
  end
end

function done(summary, latency)
  local wrong, example = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    example = thread:get("example")
  end
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    "answers=%d seconds=%.6f wrong=%d failed=%d p50_us=%d p99_us=%d example=%q\n",
    summary.requests, summary.duration / 1e6, wrong, failed, latency:percentile(50), latency:percentile(99), example
  ))
end

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

// Takes whatever is posted, answers at once, and counts the events that the header x-events speaks of, or a PostHog batch's.

let [arrived, expected] = [0, Infinity]

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  const isPostHog = request.url === '/batch/'
  request.on('data', (chunk) => { if (isPostHog) chunks.push(chunk) }).once('end', () => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"Ok"}')
    arrived += isPostHog ? countUuids(Buffer.concat(chunks)) : Number(request.headers['x-events'])
    tell()
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => process.send!({ is: 'ready', port: (server.address() as AddressInfo).port }))

process.on('message', ({ expect }: { expect: number }) => { [arrived, expected] = [0, expect]; tell() })
process.on('disconnect', () => process.exit())

function tell(): void {
  if (arrived < expected) return
  expected = Infinity
  process.send!({ is: 'arrived' })
}

function countUuids(body: Buffer): number {
  let count = 0
  for (let at = body.indexOf('"uuid"'); at !== -1; at = body.indexOf('"uuid"', at + 6)) count++
  return count
}

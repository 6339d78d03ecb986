import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Report } from './race.ts'

// Takes whatever is posted, answers at once, and looks afterwards at which events it was: a body is a list of rows of
// the log, or a batch as PostHog takes it.

const paths = new Map<string, { ids: Set<string>, repeats: number }>()
let [arrived, expected] = [0, Infinity]

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk) => chunks.push(chunk)).once('end', () => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"Ok"}')
    setImmediate(() => note(request.url!, Buffer.concat(chunks)))
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => process.send!({ is: 'ready', port: (server.address() as AddressInfo).port }))

process.on('disconnect', () => process.exit())
process.on('message', ({ expect }: { expect?: number }) => {
  if (expect === undefined) return void process.send!({ is: 'report', report: report() })
  expected = expect
  tell()
})

function note(path: string, body: Buffer): void {
  let known = paths.get(path)
  if (!known) paths.set(path, known = { ids: new Set(), repeats: 0 })
  const before = known.ids.size
  let count = 0
  const isPostHog = path.endsWith('/batch/')
  for (const id of isPostHog ? idsIn(body, '"uuid":"', '","event":"$groupidentify"') : idsIn(body, '"event_id":"')) {
    known.ids.add(id)
    count++
  }
  const added = known.ids.size - before
  known.repeats += count - added
  arrived += added
  tell()
}

/** The ids behind a key, but those with something behind them: announcements of groups are no events of the log. */
function* idsIn(body: Buffer, key: string, butBefore?: string): Generator<string> {
  for (let at = body.indexOf(key); at !== -1; at = body.indexOf(key, at)) {
    at += key.length + 36
    if (butBefore && body.toString('latin1', at, at + butBefore.length) === butBefore) continue
    yield body.toString('latin1', at - 36, at)
  }
}

function tell(): void {
  if (arrived < expected) return
  expected = Infinity
  process.send!({ is: 'arrived' })
}

function report(): Report {
  return Object.fromEntries([...paths].map(([path, { ids, repeats }]) => [path, { ids: [...ids], repeats }]))
}

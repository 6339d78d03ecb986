import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Report } from './race.ts'

// Takes whatever is posted, answers at once, and keeps it: which events those were is looked at when it is asked for, so
// that what is measured is who sends. A body is a list of rows of the log, or a batch as PostHog takes it.

const bodies: { path: string, body: Buffer }[] = []
let [arrived, expected] = [0, Infinity]

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk) => chunks.push(chunk)).once('end', () => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"Ok"}')
    keep(request.url!, Buffer.concat(chunks))
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

/** Counts what has come. */
function keep(path: string, body: Buffer): void {
  bodies.push({ path, body })
  arrived += placesOf(keyOf(path), body).length - placesOf(announcement, body).length
  tell()
}

function tell(): void {
  if (arrived < expected) return
  expected = Infinity
  process.send!({ is: 'arrived' })
}

function report(): Report {
  const report: Report = {}
  for (const { path, body } of bodies) {
    const known = report[path] ??= { ids: [], repeats: 0 }
    known.ids.push(...idsIn(body, keyOf(path)))
  }
  for (const known of Object.values(report)) {
    const ids = [...new Set(known.ids)]
    Object.assign(known, { ids, repeats: known.ids.length - ids.length })
  }
  return report
}

/** What stands before an event's id. */
function keyOf(path: string): Buffer {
  return path.endsWith('/batch/') ? postHogKey : rowKey
}

const [rowKey, postHogKey] = [Buffer.from('"event_id":"'), Buffer.from('"uuid":"')]
// Announcements of groups are no events of the log.
const announcement = Buffer.from('","event":"$groupidentify"')

function idsIn(body: Buffer, key: Buffer): string[] {
  const announced = new Set(placesOf(announcement, body))
  const places = placesOf(key, body).map((at) => at + key.length).filter((at) => !announced.has(at + 36))
  return places.map((at) => body.toString('latin1', at, at + 36))
}

function placesOf(text: Buffer, body: Buffer): number[] {
  const places: number[] = []
  for (let at = body.indexOf(text); at !== -1; at = body.indexOf(text, at + 1)) places.push(at)
  return places
}

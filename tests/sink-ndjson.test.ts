import { mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { LoggedEvent, type EventRow } from '../src/sink.ts'
import { orgs, people } from './demo.ts'
import { createSink, deliver, open, retryNow, trackIn, writeEvent, type Track } from './sending.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

let world: World
let track: Track
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let files = 0

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  folder = await temporaryFolder()
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
})
afterAll(async () => {
  await folder?.remove()
  await world?.close()
})

test('a file gets the rows of the log, a line each', async () => {
  const path = await createFileSink()
  await track('ada@acme.test',
    { event: 'First', org_id: orgs.acme, tags: { 'line\nbreak': '\u2028' } }, { event: 'Second' })
  await deliver(world.sql, 'file')
  await track('ada@acme.test', { event: 'Third' })
  await deliver(world.sql, 'file')
  const rows = await world.sql<{ row: EventRow }[]>`
    select row_to_json(e) as row from public.events as e order by txid, event_id`
  const lines = await linesOf(path)
  expect(lines.slice(0, -1).map((line) => JSON.parse(line))).toEqual(rows.map(({ row }) => row))
  expect(lines.at(-1)).toBe('')
})

test('a line is what the database wrote, with digits that JavaScript does not have, and nothing that ends a line', async () => {
  const path = await createFileSink()
  for (const event of ['First', 'Second \u2028', 'Third ,\n ]}']) {
    await writeEvent(world.sql, { event: 'Event', actor_id: people.ada, description: event })
  }
  await world.sql`update public.events set tags = '{"n": 12345678901234567890.10, "text": ", \\n "}'`
  await deliver(world.sql, 'file', { size: 2 })
  const rows = await world.sql<{ line: string }[]>`
    select row_to_json(e)::text as line from public.events as e order by txid, event_id`
  expect(rows[0]!.line).toContain('12345678901234567890.10')
  expect(await linesOf(path)).toEqual([...rows.map(({ line }) => line), ''])
})

test('a line that a crash cut short does not spoil the next', async () => {
  const path = await createFileSink()
  await writeFile(path, '{"event":"Cut sho')
  expect(await trackAndDeliver('First')).toBeNull()
  const [first, second, ...rest] = await linesOf(path)
  expect([first, JSON.parse(second!).event, rest]).toEqual(['{"event":"Cut sho', 'First', ['']])
})

test('a file that is moved away is made again, and one that a link leads to is written where it is', async () => {
  const path = await createFileSink()
  const target = `${path}.target`
  await writeFile(target, '')
  await symlink(target, path)
  await trackAndDeliver('First')
  await rename(target, `${path}.1`)
  await trackAndDeliver('Second')
  expect(await eventsIn(`${path}.1`)).toEqual(['First'])
  expect(await eventsIn(target)).toEqual(['Second'])
  expect(await eventsIn(path)).toEqual(['Second'])
})

test('where there is no such folder, the events wait for it', async () => {
  const path = join(folder.path, 'no', 'such.ndjson')
  await createSink(world.sql, 'file', 'ndjson', { path })
  expect(await trackAndDeliver('First')).toMatchObject({ kind: 'retry', message: expect.stringContaining('ENOENT') })
  await mkdir(join(folder.path, 'no'))
  await retryNow(world.sql, 'file')
  expect(await deliver(world.sql, 'file')).toBeNull()
  expect(await eventsIn(path)).toEqual(['First'])
})

test('where the disk is full, the events wait for room', async () => {
  const path = await createFileSink()
  await symlink('/dev/full', path)
  expect(await trackAndDeliver('First')).toMatchObject({ kind: 'retry', message: expect.stringContaining('ENOSPC') })
  expect(await world.sql`select pending::int, last_error from tracking.sink_lag`).toEqual([
    { pending: 1, last_error: expect.stringContaining('ENOSPC') }])
  await rename(path, `${path}.full`)
  await retryNow(world.sql, 'file')
  expect(await deliver(world.sql, 'file')).toBeNull()
  expect(await eventsIn(path)).toEqual(['First'])
})

test('what is no file, such as a pipe, takes lines as well, though it cannot keep them', async () => {
  await createSink(world.sql, 'file', 'ndjson', { path: '/dev/null' })
  expect(await trackAndDeliver('First')).toBeNull()
})

test('lines of shards that share a file come one after the other', async () => {
  const path = await createFileSink()
  const sinks = await Promise.all(Array.from({ length: 4 }, () => open(world.sql, sinkAt(path))))
  await Promise.all(sinks.flatMap((sink, n) => Array.from({ length: 5 }, (_, batch) =>
    sink.send(someEvents(`${n}.${batch}`, 200), AbortSignal.timeout(60_000)))))
  const expected = sinks.flatMap((_, n) => Array.from({ length: 5 }, (_, batch) => `${n}.${batch}`))
  const lines = await linesOf(path)
  expect(lines.indexOf('')).toBe(4000) // none is empty but what is behind the last
  const seen = lines.slice(0, -1).map((line): string => JSON.parse(line).event)
  // Whole batches, one behind the other
  expect(seen.filter((event, n) => event !== seen[n - 1]).toSorted()).toEqual(expected)
})

test('a writing that does not come to its end is given up when it is time to stop', async () => {
  const path = await createFileSink()
  const stopped = AbortSignal.abort()
  const sink = await open(world.sql, sinkAt(path))
  await expect(sink.send(someEvents('Event', 1), stopped)).rejects.toMatchObject({
    kind: 'retry', message: 'The writing was stopped.' })
})

async function createFileSink(): Promise<string> {
  const path = join(folder.path, `events-${++files}.ndjson`)
  await createSink(world.sql, 'file', 'ndjson', { path })
  return path
}

async function trackAndDeliver(event: string) {
  await track('ada@acme.test', { event })
  return deliver(world.sql, 'file')
}

const sinkAt = (path: string) => ({ sink: 'file', kind: 'ndjson', settings: { path } })

function someEvents(event: string, count: number): LoggedEvent[] {
  const json = JSON.stringify({ event, context: { blob: 'x'.repeat(10_000) } })
  return Array.from({ length: count }, () => new LoggedEvent(Buffer.from(json)))
}

const linesOf = async (path: string) => (await readFile(path, 'utf8')).split('\n')
const eventsIn = async (path: string) =>
  (await linesOf(path)).filter(Boolean).map((line): string => JSON.parse(line).event)

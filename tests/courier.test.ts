import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { deliverOnce, drain, type Courier, type Outcome } from '../src/delivery.ts'
import { openPool } from '../src/pool.ts'
import { SinkError, type EventRow, type LoggedEvent, type Sink } from '../src/sink.ts'
import { openSink } from '../src/sinks.ts'
import { people } from './demo.ts'
import { startHook, until, writeEvents, type Hook } from './workers.ts'
import { createWorld, type World } from './world.ts'

let world: World
let sql: Sql
let hook: Hook

beforeAll(async () => {
  world = await createWorld()
  sql = openPool(world.databaseUrl)
  hook = await startHook()
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
  hook.clear()
})
afterEach(async () => {
  expect(await world.sql`select * from tracking.delivery_gaps`).toEqual([])
})
afterAll(async () => {
  await hook?.close()
  await sql?.end()
  await world?.close()
})

const names = (count: number, from = 1) => Array.from({ length: count }, (_, n) => `Event ${n + from}`)
const never = new AbortController().signal
const open = { closing: never, hurrying: never, leaving: never }

test('a backlog is delivered in order, in batches, whatever fails for a moment', async () => {
  await createSink()
  await writeEvents(sql, names(45))
  hook.answer = (response, _, n) => void response.writeHead(n % 3 === 0 ? 503 : 200).end()
  const outcomes = await drainAll({ batchSize: 10 })
  expect(taken()).toEqual(names(45))
  expect(outcomes.map(({ result, delivered }) => [result, delivered]))
    .toEqual([10, 10, 10, 10, 5].map((count) => ['delivered', count]))
})

test('what is behind a batch is read while that is sent', async () => {
  await createSink()
  await writeEvents(sql, names(4))
  let wasReadMeanwhile: boolean | undefined
  hook.answer = async (response) => {
    const isRead = async () => (await world.sql`select ahead_wanted = 2 as is from tracking.cursors`)[0]!.is
    wasReadMeanwhile ??= await until(isRead)
    response.end('{}')
  }
  await drainAll({ batchSize: 2 })
  expect([wasReadMeanwhile, taken()]).toEqual([true, names(4)])
})

test('a poison event is found by halving, and kept with the answer; the others are delivered in order', async () => {
  await createSink()
  await writeEvents(sql, names(16))
  hook.answer = (response, body) => {
    const isBad = body.some(({ event }: EventRow) => event === 'Event 6' || event === 'Event 16')
    response.writeHead(isBad ? 400 : 200).end(isBad ? 'cannot stomach it' : '')
  }
  expect(await once()).toMatchObject({ result: 'delivered', delivered: 14, undelivered: 2 })
  expect(taken()).toEqual(names(16).filter((name) => name !== 'Event 6' && name !== 'Event 16'))
  expect(await world.sql`select event ->> 'event' as name, error from tracking.undelivered order by event_id`).toEqual([
    { name: 'Event 6', error: '400 cannot stomach it' }, { name: 'Event 16', error: '400 cannot stomach it' }])
})

test('what is too large at once is sent in halves, and what is too large alone is kept', async () => {
  await createSink()
  await writeEvents(sql, names(10))
  hook.answer = (response, body) => {
    const size = body.length > 3 || body.some(({ event }: EventRow) => event === 'Event 4') ? 413 : 200
    response.writeHead(size).end('too much')
  }
  expect(await once()).toMatchObject({ result: 'delivered', delivered: 9, undelivered: 1 })
  expect(taken()).toEqual(names(10).filter((name) => name !== 'Event 4'))
})

test('a single event that is refused is kept at once', async () => {
  await createSink()
  await writeEvents(sql, ['Bad'])
  hook.answer = (response) => void response.writeHead(422).end('no')
  expect(await once()).toMatchObject({ result: 'delivered', delivered: 0, undelivered: 1 })
})

test.each([401, 402, 403, 404, 410])('a sink that answers %i to everything keeps all of it waiting', async (status) => {
  await createSink()
  await writeEvents(sql, names(40))
  hook.answer = (response) => void response.writeHead(status).end('go away')
  const error = `The sink takes no event at all, and somebody must look at it: ${status} go away`
  expect(await once()).toMatchObject({ result: 'failed', delivered: 0, error })
  expect(await world.sql`select last_error, failures, pending::int, undelivered::int from tracking.sink_lag`).toEqual([
    { last_error: error, failures: 1, pending: 40, undelivered: 0 }])
  // And not all of them were tried one by one
  expect(hook.bodies.length).toBeLessThan(80)

  // When somebody has looked, nothing is missing
  hook.answer = (response) => void response.end('{}')
  await world.sql`update tracking.cursors set retry_at = null`
  await drainAll()
  expect(taken()).toEqual(names(40))
})

test.each([1, 3])('so does one that has only %d before it', async (count) => {
  await createSink()
  await writeEvents(sql, names(count))
  hook.answer = (response) => void response.writeHead(403).end('go away')
  expect(await once()).toMatchObject({ result: 'failed', delivered: 0 })
  expect(await world.sql`select pending::int, undelivered::int from tracking.sink_lag`).toEqual([
    { pending: count, undelivered: 0 }])
})

test('where even patience does not help, what a sink forbids is kept, so that the rest goes on', async () => {
  await createSink()
  await writeEvents(sql, names(3))
  hook.answer = (response) => void response.writeHead(403).end('no')
  await world.sql`update tracking.cursors set failures = 20`
  expect(await once()).toMatchObject({ result: 'delivered', undelivered: 3 })
})

test('among events that a firewall forbids, the others are found', async () => {
  await createSink()
  await writeEvents(sql, names(20))
  hook.answer = (response, body) => {
    const isForbidden = body.some(({ event }: EventRow) => event === 'Event 1')
    response.writeHead(isForbidden ? 403 : 200).end('')
  }
  expect(await once()).toMatchObject({ result: 'delivered', delivered: 19, undelivered: 1 })
})

test('an outage keeps the order and loses nothing, and what was sent of a batch counts', async () => {
  await createSink()
  await writeEvents(sql, names(10))
  let up = true
  hook.answer = (response, body) => {
    if (body[0].event === 'Event 7') up = false
    if (up) response.end('{}')
    else response.socket!.destroy()
  }
  expect(await once({ maxBatch: 2 })).toMatchObject({
    result: 'failed', delivered: 6, error: expect.stringContaining('fetch failed') })
  expect(await world.sql`select delivered::int, pending::int, failures from tracking.sink_lag`).toEqual([
    { delivered: 6, pending: 4, failures: 1 }])
  hook.answer = (response) => void response.end('{}')
  await world.sql`update tracking.cursors set retry_at = null`
  hook.bodies.length = hook.taken.length = 0
  await drainAll({ maxBatch: 2 })
  expect(taken()).toEqual(names(4, 7))
})

test('a sink that asks for a long pause gets it; a short one is waited for', async () => {
  await createSink()
  await writeEvents(sql, ['First'])
  hook.answer = (response, _, n) => void response.writeHead(n === 1 ? 429 : 200, { 'retry-after': '1' }).end()
  expect(await once()).toMatchObject({ result: 'delivered' })
  await writeEvents(sql, ['Second'])
  hook.answer = (response) => void response.writeHead(429, { 'retry-after': '600' }).end()
  expect(await once()).toMatchObject({ result: 'failed' })
  const [row] = await world.sql`select retry_at > now() + interval '500 seconds' as late from tracking.sink_lag`
  expect([hook.bodies.length, row?.late]).toEqual([3, true])
})

test('a sink that cannot be opened waits, with the reason', async () => {
  await createSink('posthog')
  await writeEvents(sql, ['First'])
  const context = { secret: () => undefined, fetch, sql, log() {} }
  expect(await once({ open: (batch) => openSink(batch, context) })).toMatchObject({
    result: 'failed', error: expect.stringContaining('has no api_key') })
})

test('events that a sink knows it can never send are kept, and the others are delivered', async () => {
  await createSink()
  await writeEvents(sql, names(6))
  const isBad = ({ row }: LoggedEvent) => /[25]/.test(row.event)
  const send: Sink['send'] = async (events) => events.filter(isBad).map((event) => ({ event, error: 'no address' }))
  expect(await once({ open: () => ({ maxBatch: 3, send }) })).toMatchObject({
    result: 'delivered', delivered: 4, undelivered: 2 })
  expect(await world.sql`select event ->> 'event' as name from tracking.undelivered order by event_id`).toEqual([
    { name: 'Event 2' }, { name: 'Event 5' }])
})

test.each([10, 130])('a sink that lets a request wait for %d s is not asked again at once', async (seconds) => {
  await createSink()
  await writeEvents(sql, names(2))
  let sent = 0
  const clock = vi.spyOn(performance, 'now')
  const send: Sink['send'] = async () => {
    sent++
    const later = performance.now() + seconds * 1000
    clock.mockImplementation(() => later)
    throw new SinkError('retry', 'There was no answer.')
  }
  const outcome = await once({ open: () => ({ maxBatch: 500, send }) }).finally(() => clock.mockRestore())
  expect([sent, outcome]).toMatchObject([1, { result: 'failed', error: 'There was no answer.' }])
  expect(await world.sql`select failures, last_error from tracking.sink_lag`).toEqual([
    { failures: 1, last_error: 'There was no answer.' }])
})

test('a lease is kept while a send takes long, and what is done is booked meanwhile', async () => {
  await createSink()
  await writeEvents(sql, names(4))
  let release = () => {}
  const held = new Promise<void>((done) => { release = done })
  hook.answer = async (response, body) => { if (body[0].event === 'Event 3') await held; response.end('{}') }
  const delivery = once({ maxBatch: 1, leaseSeconds: 1 })
  await until(async () => (await world.sql`select delivered::int from tracking.cursors`)[0]?.delivered === 2)
  const [before] = await world.sql`select leased_until from tracking.cursors`
  await until(async () => (
    await world.sql`select leased_until > ${before!.leased_until} as is_later from tracking.cursors`)[0]?.is_later)
  expect(await once({ worker: 'other', open: () => { throw new Error('never') } })).toBeUndefined()
  release()
  expect(await delivery).toMatchObject({ result: 'delivered', delivered: 4 })
})

test.each([true, false])('where the database has done what it was asked, and its answer is lost, the books are right (told of it: %s)', async (isTold) => {
  await createSink()
  await writeEvents(sql, names(12))
  hook.answer = async (response, body) => {
    const [{ event }] = body
    if (event === 'Event 3') await until(() => lost.has('advance_batch')) // the lease books what is done meanwhile
    const isDown = event === 'Event 10' && !lost.has('fail_batch')
    response.writeHead(/ (2|6|12)$/.test(event) ? 422 : isDown ? 503 : 200).end()
  }
  const lost = new Set<string>()
  const forgetful = forgettingOnce(['advance_batch', 'fail_batch', 'complete_batch'], lost, isTold)
  for (let round = 0; round < 4; round++) {
    await drainAll({ sql: forgetful, maxBatch: 1, batchSize: 4, leaseSeconds: 1 })
    await world.sql`update tracking.cursors set retry_at = null, leased_until = null`
  }
  expect([...lost].sort()).toEqual(['advance_batch', 'complete_batch', 'fail_batch'])
  expect(taken()).toEqual(names(12).filter((name) => !/ (2|6|12)$/.test(name)))
  expect(await world.sql`select delivered::int, undelivered::int from tracking.cursors`).toEqual([
    { delivered: 9, undelivered: 3 }])
})

test('who has lost the lease stops, and the other delivers the rest', async () => {
  await createSink()
  await writeEvents(sql, names(4))
  const requests: string[] = []
  hook.answer = async (response, body) => {
    requests.push(body[0].event)
    if (requests.length === 2) {
      await world.sql`update tracking.cursors set lease = gen_random_uuid(), leased_until = now()`
      return // never answers
    }
    response.end('{}')
  }
  expect(await once({ maxBatch: 1, leaseSeconds: 1 })).toMatchObject({ result: 'lost' })
  const before = requests.length
  expect(before).toBe(2)
  await drainAll({ maxBatch: 1 })
  expect(requests.slice(2)).toEqual(names(4))
})

test('when it is time to end, the request under way is finished, and the rest of the batch is anybody\'s', async () => {
  await createSink()
  await writeEvents(sql, names(4))
  const hurrying = new AbortController()
  hook.answer = (response, body) => { if (body[0].event === 'Event 2') hurrying.abort(); response.end('{}') }
  expect(await once({ maxBatch: 1 }, { ...open, hurrying: hurrying.signal })).toMatchObject({
    result: 'interrupted', delivered: 2 })
  expect(await world.sql`select failures, last_error from tracking.cursors`).toEqual([
    { failures: 0, last_error: null }])
  hook.bodies.length = hook.taken.length = 0
  await drainAll()
  expect(taken()).toEqual(names(2, 3))
})

test('a batch that takes too long is handed on', async () => {
  await createSink()
  await writeEvents(sql, names(6))
  hook.answer = (response) => void setTimeout(() => response.end('{}'), 300)
  const outcome = await once({ maxBatch: 1, batchSeconds: 0.7 })
  expect(outcome).toMatchObject({ result: 'interrupted' })
  expect(outcome!.delivered).toBeGreaterThan(0)
  expect(outcome!.delivered).toBeLessThan(6)
  expect(await isFree()).toBe(true)
})

test('when it is time to end between two batches, the one that was leased ahead is anybody\'s', async () => {
  await createSink()
  await writeEvents(sql, names(6))
  const closing = new AbortController()
  hook.answer = (response) => { closing.abort(); response.end('{}') }
  await drainAll({ batchSize: 2 }, { ...open, closing: closing.signal })
  expect(taken()).toEqual(names(2))
  expect(await isFree()).toBe(true)
})

test('shards are delivered at once, and each scope in order', async () => {
  await createSink('webhook', 4)
  const scopes = Object.values(people)
  await writeEvents(sql, names(60), scopes)
  let atOnce = 0, most = 0
  hook.answer = async (response) => {
    most = Math.max(most, ++atOnce)
    await new Promise((done) => setTimeout(done, 20))
    atOnce--
    response.end('{}')
  }
  await Promise.all(Array.from({ length: 4 }, () => drainAll({ batchSize: 5 })))
  expect(most).toBeGreaterThan(1)
  const all: EventRow[] = hook.bodies.flat()
  expect(all.length).toBe(60)
  for (const scope of scopes) {
    const numbers = all.filter(({ scope_id }) => scope_id === scope).map(({ event }) => Number(event.slice(6)))
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
  }
})

async function createSink(kind = 'webhook', shards = 1): Promise<void> {
  await world.sql`select tracking.create_sink('sink', ${kind}, shards => ${shards})`
}

type Options = Partial<Courier> & { maxBatch?: number }

function courier({ maxBatch = 500, ...options }: Options = {}): Courier {
  const sink: Sink = {
    maxBatch,
    async send(events, signal) {
      const response = await fetch(hook.url, { method: 'POST', body: `[${events.map(({ json }) => json).join(',')}]`, signal })
        .catch((error: Error) => { throw new SinkError('retry', error.message) })
      const text = `${response.status} ${await response.text()}`
      const { status } = response
      if (response.ok) return []
      if (status === 413) throw new SinkError('too_large', text, { status })
      const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1000
      if (status === 429 || status >= 500) throw new SinkError('retry', text, { status, retryAfterMs })
      throw new SinkError('refused', text, { status })
    },
  }
  return { sql, worker: 'test', open: () => sink, ...options }
}

/** The database, whose answer to a call of each of these functions is lost once. */
function forgettingOnce(functions: string[], lost: Set<string>, isTold: boolean): Sql {
  const tell = (text: string, rows: unknown) => {
    const called = functions.find((name) => text.includes(name))
    if (called === undefined || lost.has(called)) return rows
    lost.add(called)
    if (!isTold) return []
    throw Object.assign(new Error('The answer is lost.'), { code: 'CONNECTION_CLOSED' })
  }
  const ask = (strings: TemplateStringsArray, ...values: never[]) => {
    const query = sql(strings, ...values)
    const then: Promise<unknown>['then'] = (done, fail) => query.then((rows) => tell(strings.join(''), rows)).then(done, fail)
    return { raw: () => { query.raw(); return { then } }, then }
  }
  return ask as unknown as Sql
}

const once = (options?: Options, ending = open) => deliverOnce(courier(options), 'sink', ending)

async function isFree(): Promise<boolean> {
  const [row] = await world.sql`
    select coalesce(leased_until <= clock_timestamp(), true) as is_free from tracking.cursors`
  return row!.is_free
}

async function drainAll(options?: Options, ending = open): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  await drain(courier(options), 'sink', ending, { ended: (outcome) => outcomes.push(outcome) })
  return outcomes
}

/** The names of events in the order that the hook took them first. */
function taken(): string[] {
  return [...new Set(hook.taken.flat().map(({ event }: EventRow) => event))]
}

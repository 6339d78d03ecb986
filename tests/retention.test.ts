import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { connect } from '../src/database.ts'
import { people } from './demo.ts'
import { as, failureOf, service } from './sessions.ts'
import { until } from './workers.ts'
import { cloneDatabase, templates, type Clone } from './world.ts'

// What is dropped from the log, while others write, read and deliver. One session's part is in tests/database/09_retention.test.sql.

let clone: Clone
let sql: Sql

beforeEach(async () => {
  clone = await cloneDatabase(templates.world)
  sql = connect(clone.databaseUrl)
  await sql`delete from public.events`
  for (const month of ['2025-01', '2025-02', '2025-03']) await sql`select tracking.make_partition(${`${month}-01`}::timestamp)`
})
afterEach(async () => {
  await sql.end({ timeout: 1 })
  await clone.drop()
})

const [january, february, march] = ['2025-01', '2025-02', '2025-03'].map((month) => `tracking.events_${month.replace('-', '_')}`) as [string, string, string]

test('what every sink is done with is dropped, and the books of all of them balance as before', async () => {
  // Given sinks that began at the beginning, later, with filters, in shards; that refused events; and that were rewound
  await write('2025-01', 'Old 1', 'Old 2', 'Other')
  await createSink('all')
  await createSink('some', { events: ['Old *'] })
  await createSink('sharded', { shards: 3 })
  await createSink('late', { fromBeginning: false })
  await createSink('rewound')
  await createSink('refusing')
  await write('2025-01', 'Old 3')
  await write('2025-02', 'Old 4', 'Other')
  await write(thisMonth(), 'New')
  await drain('rewound')
  await sql`select tracking.rewind_sink('rewound', (select received_at from events where event = 'Old 3'))`
  for (const sink of ['all', 'some', 'sharded', 'late', 'rewound']) await drain(sink)
  const batch = await lease('refusing')
  await complete(batch, batch!.events.filter(({ event }) => event === 'Old 1' || event === 'New').map((event) => ({ event, error: '400' })))
  const before = await lag()
  expect(before).toMatchObject([
    { sink: 'all', pending: 0, delivered: 7, filtered: 0, undelivered: 0 },
    { sink: 'late', pending: 0, delivered: 4, filtered: 0, undelivered: 0 },
    { sink: 'refusing', pending: 0, delivered: 5, filtered: 0, undelivered: 2 },
    { sink: 'rewound', pending: 0, delivered: 4, filtered: 0, undelivered: 0 },
    { sink: 'sharded', pending: 0, delivered: 7, filtered: 0, undelivered: 0 },
    { sink: 'some', pending: 0, delivered: 4, filtered: 3, undelivered: 0 },
  ])

  // When the old months are dropped
  expect(await drop()).toEqual([
    { partition: january, dropped: true, events: 4, reason: null },
    { partition: february, dropped: true, events: 2, reason: null },
    { partition: march, dropped: true, events: 0, reason: null },
  ])

  // Then only the new event is there, and nothing is missed, now or later
  expect(await sql`select event from events`).toEqual([{ event: 'New' }])
  expect(await lag()).toEqual(before)
  expect(await gaps()).toEqual([])
  await settle('refusing', 'dropped', batch!.events[0]!)
  await write(thisMonth(), 'Newer')
  for (const { sink } of before) await drain(sink)
  expect(await gaps()).toEqual([])
  expect((await lag()).map(({ delivered, filtered }) => delivered + filtered)).toEqual(before.map(({ delivered, filtered }) => delivered + filtered + 1))
  expect(await drop()).toEqual([])

  // And what comes for such a month later is dropped when its time has come
  await write('2025-01', 'Straggler')
  await sql`select tracking.make_partitions()`
  for (const { sink } of before) await drain(sink)
  expect(await drop()).toEqual([{ partition: january, dropped: true, events: 1, reason: null }])
  expect(await gaps()).toEqual([])
  expect(await sql`select partition, events::int from tracking.dropped_partitions order by dropped_at, partition`).toEqual([
    { partition: january, events: 4 }, { partition: february, events: 2 }, { partition: march, events: 0 }, { partition: january, events: 1 }])
})

test('nothing is missed where the books do not balance: dropping hides no loss', async () => {
  await write('2025-01', 'Old', 'Lost')
  await createSink('sink')
  await drain('sink')
  await sql`update tracking.cursors set delivered = delivered - 1`
  await drop()
  expect(await sql`select events::int, expired::int, delivered::int from tracking.delivery_gaps`).toEqual([{ events: 0, expired: 2, delivered: 1 }])
})

test.each<[string, (sink: string) => Promise<unknown>]>([
  ['has not looked', async () => {}],
  ['is disabled', (sink) => sql`update tracking.sinks set enabled = false where name = ${sink}`],
  ['has a batch under way', (sink) => lease(sink)],
  ['has a part of a batch behind it', async (sink) => { await complete(await lease(sink, 2)) }],
  ['has the last event under way', async (sink) => { await complete(await lease(sink, 3)); await lease(sink) }],
  ['has leased the last event ahead', async (sink) => {
    const batch = await lease(sink, 3)
    await sql`select tracking.lease_ahead(${sink}, ${batch!.shard}, ${batch!.lease})`
    await sql`select tracking.advance_batch(${sink}, ${batch!.shard}, ${batch!.lease}, 2, ${batch!.events[1]!.txid}, ${batch!.events[1]!.event_id})`
  }],
  ['waits to try again', async (sink) => { const batch = await lease(sink); await sql`select tracking.fail_batch(${sink}, 0, ${batch!.lease}, '503', '1 hour')` }],
  ['was rewound', async (sink) => { await drain(sink); await sql`select tracking.rewind_sink(${sink}, '-infinity')` }],
])('a month stays that has events of a sink which %s', async (_, situation) => {
  await write('2025-01', 'Old 1', 'Old 2')
  await write('2025-02', 'Old 3')
  await write('2025-01', 'Old 4')
  await createSink('done')
  await createSink('not_done')
  await drain('done')
  await situation('not_done')
  expect(await drop()).toContainEqual({ partition: january, dropped: false, events: null, reason: 'These sinks are not done with it: not_done.' })
  expect((await sql`select event from events where event in ('Old 1', 'Old 2', 'Old 4')`).length).toBe(3)
  await sql`update tracking.sinks set enabled = true`
  await sql`update tracking.cursors set leased_until = now(), retry_at = null`
  expect((await drain('not_done')).at(-1)).toBe('Old 4')
  expect((await drop()).filter(({ dropped }) => dropped).length).toBeGreaterThan(0)
  expect(await sql`select from events`).toEqual([])
  expect(await gaps()).toEqual([])
})

test('a month stays until every shard of a sink is done with its part of it', async () => {
  const scopes = Array.from({ length: 12 }, (_, n) => `30000000-0000-4000-8000-0000000000${String(n).padStart(2, '0')}`)
  for (const scope of scopes) await write('2025-01', { scope }, 'Old')
  await createSink('sink', { shards: 4 })
  const batches = [await lease('sink'), await lease('sink'), await lease('sink'), await lease('sink')]
  for (const batch of batches) {
    expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
    await complete(batch)
  }
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 12, reason: null })
  expect(await gaps()).toEqual([])
})

test('a month that somebody is writing to stays, and so does the event when it is committed', async () => {
  await createSink('sink')
  const writer = await begin()
  await write('2025-01', { on: writer.sql }, 'Backfilled')
  expect(await failureOf(drop())).toMatchObject({ code: '55P03' })
  await writer.commit()
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
  expect(await drain('sink')).toEqual(['Backfilled'])
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 1, reason: null })
  expect(await gaps()).toEqual([])
})

test.each([['no sink is', false], ['a sink is', true]])('an event that is committed between the look at a month and its end is kept, where %s there to want it', async (_, hasSink) => {
  if (hasSink) await createSink('sink')
  await sql`alter function tracking.drop_partitions set lock_timeout = '60s'`
  const writer = await begin()
  await write('2025-01', { on: writer.sql }, 'Just in time')
  const dropped = drop()
  await until(async () => (await sql`select from pg_locks where relation = 'public.events'::regclass and not granted`).length > 0)
  await writer.commit()
  expect(await dropped).toContainEqual({ partition: january, dropped: false, events: null, reason: 'Events were just written to it.' })
  expect(await dropped).toContainEqual({ partition: february, dropped: true, events: 0, reason: null })
  expect(await sql`select event from events`).toEqual([{ event: 'Just in time' }])
})

test('a reader keeps what it reads: whoever would drop it gives way, and nobody else waits for long', async () => {
  await write('2025-01', ...Array.from({ length: 50 }, (_, n) => `Old ${n}`))
  const reader = await begin()
  await reader.sql`declare slowly cursor for select event from events`
  expect(await reader.sql`fetch 10 from slowly`).toHaveLength(10)
  const dropping = failureOf(drop())
  const writing = write(thisMonth(), 'New')
  expect(await dropping).toMatchObject({ code: '55P03' })
  await writing
  expect(await reader.sql`fetch all from slowly`).toHaveLength(40)
  await reader.commit()
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: true }))
})

test('who makes a sink or rewinds one, and has not committed, is given way to', async () => {
  await createSink('sink')
  for (const statement of [`create_sink('another', 'ndjson', from_beginning => true)`, `rewind_sink('sink', '-infinity')`]) {
    const session = await begin()
    await session.sql.unsafe(`select tracking.${statement}`)
    expect(await failureOf(drop())).toMatchObject({ code: '55P03' })
    await session.commit()
  }
})

test('who rewinds a sink waits for who drops, and keeps nobody from the log meanwhile', async () => {
  await createSink('sink')
  await write('2025-01', 'Old')
  const dropping = await begin()
  await dropping.sql`lock table tracking.expired in share row exclusive mode`
  const rewound = rewind('sink', '2020-01-01')
  const pid = await until(async () => {
    const [row] = await sql<{ pid: number }[]>`select pid from pg_locks where relation = 'tracking.expired'::regclass and not granted`
    return row?.pid
  })
  expect(await sql`select from pg_locks where pid = ${pid} and relation in (select inhrelid from pg_inherits union select 'public.events'::regclass)`).toEqual([])
  await dropping.commit()
  expect(await rewound).toBe(0)
})

test('a transaction that would not see what was written last cannot drop anything', async () => {
  for (const level of ['repeatable read', 'serializable']) {
    expect(await failureOf(sql.begin(`isolation level ${level}`, (tx) => tx`select * from tracking.drop_partitions('0')`))).toMatchObject({ code: '25001' })
  }
})

test('a rewind says what it cannot bring back, and keeps the dead letters that have gone from the log', async () => {
  // Given a sink that refused an old and a new event, and the months that have gone since
  await createSink('sink', { shards: 2 })
  await write('2025-01', 'Old', 'Old and bad')
  await write(thisMonth(), 'New', 'New and bad')
  for (let batch = await lease('sink'); batch; batch = await lease('sink')) {
    await complete(batch, batch.events.filter(({ event }) => event.includes('bad')).map((event) => ({ event, error: '400' })))
  }
  const [{ between } = { between: '' }] = await sql`select (max(received_at) + interval '1 microsecond')::text as between from events where event like 'Old%'`
  expect(await rewind('sink', '-infinity')).toBe(0)
  for (let batch = await lease('sink'); batch; batch = await lease('sink')) {
    await complete(batch, batch.events.filter(({ event }) => event.includes('bad')).map((event) => ({ event, error: '400' })))
  }
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 2, reason: null })

  // When it is rewound to before, or after
  expect(await rewind('sink', between)).toBe(0)
  expect(await gaps()).toEqual([])
  expect(await rewind('sink', '2020-01-01')).toBe(2)
  expect(await rewind('sink', '-infinity')).toBe(2)

  // Then it has what there is, and the letter that nothing else has
  expect(await gaps()).toEqual([])
  expect(await sql`select event ->> 'event' as event from tracking.undelivered`).toEqual([{ event: 'Old and bad' }])
  expect(await drain('sink')).toEqual(['New', 'New and bad'])
  expect(await lag()).toMatchObject([{ pending: 0, delivered: 2, undelivered: 1 }])
  const [letter] = await sql`select scope_id, event_id from tracking.undelivered`
  expect(await settle('sink', 'delivered', letter!)).toBe(1)
  expect(await lag()).toMatchObject([{ pending: 0, delivered: 3, undelivered: 0 }])
  expect(await gaps()).toEqual([])
})

test('a later generation of the log stays as long as a sink is in an earlier one', async () => {
  await createSink('sink')
  await write('2025-01', 'Old')
  await drain('sink')
  await sql`update public.events set epoch = 2`
  await sql`do $$ begin update tracking.log set epoch = 2; update tracking.log set written_by = xmin; end $$`
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
})

/** Drops whatever is over, as the service role. */
async function drop() {
  const rows = await as(sql, service, (tx) => tx`select partition, dropped, events::int, reason from tracking.drop_partitions('1 month')`)
  return [...rows] as { partition: string, dropped: boolean, events: number | null, reason: string | null }[]
}

type Batch = { sink: string, shard: number, lease: string, events: { event: string, event_id: string, scope_id: string, txid: string }[] }
type SinkOptions = { fromBeginning?: boolean, shards?: number, events?: string[] }

async function createSink(name: string, { fromBeginning = true, shards = 1, events }: SinkOptions = {}): Promise<void> {
  await sql`select tracking.create_sink(${name}, 'ndjson', from_beginning => ${fromBeginning}, shards => ${shards}, events => ${events ?? null})`
}

/** Writes events that happened in a month, in one transaction. */
async function write(month: string, ...events: (string | { scope?: string, on?: Sql })[]): Promise<void> {
  const [options] = events.filter((event) => typeof event !== 'string')
  const { scope = people.ada, on = sql } = options ?? {}
  await on`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select ${scope}, ${scope}, tracking.event_time(i.id), i.id, t.event, 'service'
    from   unnest(${events.filter((event) => typeof event === 'string')}::text[]) with ordinality as t (event, n),
           tracking.new_event_id(${`${month}-01`}::timestamp at time zone 'UTC' + t.n * interval '1 second') as i (id)`
}

const thisMonth = () => new Date().toISOString().slice(0, 7)

/** A session in a transaction. */
async function begin() {
  const connection = await sql.reserve()
  await connection`begin`
  return { sql: connection, commit: async () => { await connection`commit`; connection.release() } }
}

async function lease(sink: string, size = 500): Promise<Batch | null> {
  const [batch] = await sql<Batch[]>`select * from tracking.lease_batch(${sink}, 'test', ${size})`
  return batch ?? null
}

async function complete(batch: Batch | null, undelivered: object[] = []): Promise<void> {
  const [row] = await sql`select tracking.complete_batch(${batch!.sink}, ${batch!.shard}, ${batch!.lease}, ${sql.json(undelivered as never)}) as done`
  expect(row?.done).toBe(true)
}

async function drain(sink: string): Promise<string[]> {
  const all: string[] = []
  for (let batch = await lease(sink); batch; batch = await lease(sink)) {
    all.push(...batch.events.map(({ event }) => event))
    await complete(batch)
  }
  return all
}

async function settle(sink: string, outcome: string, event: object): Promise<number> {
  const { scope_id, event_id } = event as Batch['events'][number]
  return (await sql`select tracking.settle_undelivered(${sink}, ${outcome}, ${sql.json([{ scope_id, event_id }])}) as n`)[0]?.n
}

async function rewind(sink: string, to: string): Promise<number> {
  return Number((await sql`select tracking.rewind_sink(${sink}, ${to}::text::timestamptz) as gone`)[0]?.gone)
}

async function lag() {
  const rows = await sql<{ sink: string, pending: number, delivered: number, filtered: number, undelivered: number }[]>`
    select sink, pending::int, delivered::int, filtered::int, undelivered::int from tracking.sink_lag order by sink`
  return [...rows]
}

const gaps = async () => [...await sql`select * from tracking.delivery_gaps`]

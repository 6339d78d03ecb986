import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { openEmptyLog, thisMonth, type Log } from './log.ts'
import { as, failureOf, service } from './sessions.ts'
import { until } from './workers.ts'

// What is dropped from the log, while others write, read and deliver. One session's part is in tests/database/09_retention.test.sql.

let sql: Sql
let log: Log
let close: () => Promise<void>

beforeEach(async () => { ({ sql, log, close } = await openEmptyLog('2025-01', '2025-02', '2025-03')) })
afterEach(() => close())

const [january, february, march] = ['2025-01', '2025-02', '2025-03'].map((month) => `tracking.events_${month.replace('-', '_')}`) as [string, string, string]

test('what every sink is done with is dropped, and the books of all of them balance as before', async () => {
  // Given sinks that began at the beginning, later, with filters, in shards; that refused events; and that were rewound
  await log.write('2025-01', 'Old 1', 'Old 2', 'Other')
  await log.createSink('all')
  await log.createSink('some', { events: ['Old *'] })
  await log.createSink('sharded', { shards: 3 })
  await log.createSink('late', { fromBeginning: false })
  await log.createSink('rewound')
  await log.createSink('refusing')
  await log.write('2025-01', 'Old 3')
  await log.write('2025-02', 'Old 4', 'Other')
  await log.write(thisMonth(), 'New')
  await log.drain('rewound')
  await sql`select tracking.rewind_sink('rewound', (select received_at from events where event = 'Old 3'))`
  for (const sink of ['all', 'some', 'sharded', 'late', 'rewound']) await log.drain(sink)
  const batch = await log.lease('refusing')
  await log.complete(batch, batch!.events.filter(({ event }) => event === 'Old 1' || event === 'New').map((event) => ({ event, error: '400' })))
  const before = await log.lag()
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
  expect(await log.lag()).toEqual(before)
  expect(await log.gaps()).toEqual([])
  await log.settle('refusing', 'dropped', batch!.events[0]!)
  await log.write(thisMonth(), 'Newer')
  for (const { sink } of before) await log.drain(sink)
  expect(await log.gaps()).toEqual([])
  expect((await log.lag()).map(({ delivered, filtered }) => delivered + filtered)).toEqual(before.map(({ delivered, filtered }) => delivered + filtered + 1))
  expect(await drop()).toEqual([])

  // And what comes for such a month later is dropped when its time has come
  await log.write('2025-01', 'Straggler')
  await sql`select tracking.make_partitions()`
  for (const { sink } of before) await log.drain(sink)
  expect(await drop()).toEqual([{ partition: january, dropped: true, events: 1, reason: null }])
  expect(await log.gaps()).toEqual([])
  expect(await sql`select partition, events::int from tracking.dropped_partitions order by dropped_at, partition`).toEqual([
    { partition: january, events: 4 }, { partition: february, events: 2 }, { partition: march, events: 0 }, { partition: january, events: 1 }])
})

test('nothing is missed where the books do not balance: dropping hides no loss', async () => {
  await log.write('2025-01', 'Old', 'Lost')
  await log.createSink('sink')
  await log.drain('sink')
  await sql`update tracking.cursors set delivered = delivered - 1`
  await drop()
  expect(await sql`select events::int, expired::int, delivered::int from tracking.delivery_gaps`).toEqual([{ events: 0, expired: 2, delivered: 1 }])
})

test.each<[string, (sink: string) => Promise<unknown>]>([
  ['has not looked', async () => {}],
  ['is disabled', (sink) => sql`update tracking.sinks set enabled = false where name = ${sink}`],
  ['has a batch under way', (sink) => log.lease(sink)],
  ['has a part of a batch behind it', async (sink) => { await log.complete(await log.lease(sink, 2)) }],
  ['has the last event under way', async (sink) => { await log.complete(await log.lease(sink, 3)); await log.lease(sink) }],
  ['has leased the last event ahead', async (sink) => {
    const batch = await log.lease(sink, 3)
    await sql`select tracking.lease_ahead(${sink}, ${batch!.shard}, ${batch!.lease})`
    await sql`select tracking.advance_batch(${sink}, ${batch!.shard}, ${batch!.lease}, 2, ${batch!.events[1]!.txid}, ${batch!.events[1]!.event_id})`
  }],
  ['waits to try again', async (sink) => { const batch = await log.lease(sink); await sql`select tracking.fail_batch(${sink}, 0, ${batch!.lease}, '503', '1 hour')` }],
  ['was rewound', async (sink) => { await log.drain(sink); await sql`select tracking.rewind_sink(${sink}, '-infinity')` }],
])('a month stays that has events of a sink which %s', async (_, situation) => {
  await log.write('2025-01', 'Old 1', 'Old 2')
  await log.write('2025-02', 'Old 3')
  await log.write('2025-01', 'Old 4')
  await log.createSink('done')
  await log.createSink('not_done')
  await log.drain('done')
  await situation('not_done')
  expect(await drop()).toContainEqual({ partition: january, dropped: false, events: null, reason: 'These sinks are not done with it: not_done.' })
  expect((await sql`select event from events where event in ('Old 1', 'Old 2', 'Old 4')`).length).toBe(3)
  await sql`update tracking.sinks set enabled = true`
  await sql`update tracking.cursors set leased_until = now(), retry_at = null`
  expect((await log.drain('not_done')).at(-1)).toBe('Old 4')
  expect((await drop()).filter(({ dropped }) => dropped).length).toBeGreaterThan(0)
  expect(await sql`select from events`).toEqual([])
  expect(await log.gaps()).toEqual([])
})

test('a month stays until every shard of a sink is done with its part of it', async () => {
  const scopes = Array.from({ length: 12 }, (_, n) => `30000000-0000-4000-8000-0000000000${String(n).padStart(2, '0')}`)
  for (const scope of scopes) await log.write('2025-01', { actor: scope }, 'Old')
  await log.createSink('sink', { shards: 4 })
  const batches = [await log.lease('sink'), await log.lease('sink'), await log.lease('sink'), await log.lease('sink')]
  for (const batch of batches) {
    expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
    await log.complete(batch)
  }
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 12, reason: null })
  expect(await log.gaps()).toEqual([])
})

test('a month that somebody is writing to stays, and so does the event when it is committed', async () => {
  await log.createSink('sink')
  const writer = await log.begin()
  await log.write('2025-01', { on: writer.sql }, 'Backfilled')
  expect(await failureOf(drop())).toMatchObject({ code: '55P03' })
  await writer.commit()
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
  expect(await log.drain('sink')).toEqual(['Backfilled'])
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 1, reason: null })
  expect(await log.gaps()).toEqual([])
})

test.each([['no sink is', false], ['a sink is', true]])('an event that is committed between the look at a month and its end is kept, where %s there to want it', async (_, hasSink) => {
  if (hasSink) await log.createSink('sink')
  await sql`alter function tracking.drop_partitions set lock_timeout = '60s'`
  const writer = await log.begin()
  await log.write('2025-01', { on: writer.sql }, 'Just in time')
  const dropped = drop()
  await until(async () => (await sql`select from pg_locks where relation = 'public.events'::regclass and not granted`).length > 0)
  await writer.commit()
  expect(await dropped).toContainEqual({ partition: january, dropped: false, events: null, reason: 'Events were just written to it.' })
  expect(await dropped).toContainEqual({ partition: february, dropped: true, events: 0, reason: null })
  expect(await sql`select event from events`).toEqual([{ event: 'Just in time' }])
})

test('a reader keeps what it reads: whoever would drop it gives way, and nobody else waits for long', async () => {
  await log.write('2025-01', ...Array.from({ length: 50 }, (_, n) => `Old ${n}`))
  const reader = await log.begin()
  await reader.sql`declare slowly cursor for select event from events`
  expect(await reader.sql`fetch 10 from slowly`).toHaveLength(10)
  const dropping = failureOf(drop())
  const writing = log.write(thisMonth(), 'New')
  expect(await dropping).toMatchObject({ code: '55P03' })
  await writing
  expect(await reader.sql`fetch all from slowly`).toHaveLength(40)
  await reader.commit()
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: true }))
})

test('who makes a sink or rewinds one, and has not committed, is given way to', async () => {
  await log.createSink('sink')
  for (const statement of [`create_sink('another', 'ndjson', from_beginning => true)`, `rewind_sink('sink', '-infinity')`]) {
    const session = await log.begin()
    await session.sql.unsafe(`select tracking.${statement}`)
    expect(await failureOf(drop())).toMatchObject({ code: '55P03' })
    await session.commit()
  }
})

test('who rewinds a sink waits for who drops, and keeps nobody from the log meanwhile', async () => {
  await log.createSink('sink')
  await log.write('2025-01', 'Old')
  const dropping = await log.begin()
  await dropping.sql`lock table tracking.expired in share row exclusive mode`
  const rewound = log.rewind('sink', '2020-01-01')
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
  await log.createSink('sink', { shards: 2 })
  await log.write('2025-01', 'Old', 'Old and bad')
  await log.write(thisMonth(), 'New', 'New and bad')
  for (let batch = await log.lease('sink'); batch; batch = await log.lease('sink')) {
    await log.complete(batch, batch.events.filter(({ event }) => event.includes('bad')).map((event) => ({ event, error: '400' })))
  }
  const [{ between } = { between: '' }] = await sql`select (max(received_at) + interval '1 microsecond')::text as between from events where event like 'Old%'`
  expect(await log.rewind('sink', '-infinity')).toBe(0)
  for (let batch = await log.lease('sink'); batch; batch = await log.lease('sink')) {
    await log.complete(batch, batch.events.filter(({ event }) => event.includes('bad')).map((event) => ({ event, error: '400' })))
  }
  expect(await drop()).toContainEqual({ partition: january, dropped: true, events: 2, reason: null })

  // When it is rewound to before, or after
  expect(await log.rewind('sink', between)).toBe(0)
  expect(await log.gaps()).toEqual([])
  expect(await log.rewind('sink', '2020-01-01')).toBe(2)
  expect(await log.rewind('sink', '-infinity')).toBe(2)

  // Then it has what there is, and the letter that nothing else has
  expect(await log.gaps()).toEqual([])
  expect(await sql`select event ->> 'event' as event from tracking.undelivered`).toEqual([{ event: 'Old and bad' }])
  expect(await log.drain('sink')).toEqual(['New', 'New and bad'])
  expect(await log.lag()).toMatchObject([{ pending: 0, delivered: 2, undelivered: 1 }])
  const [letter] = await sql`select scope_id, event_id from tracking.undelivered`
  expect(await log.settle('sink', 'delivered', letter!)).toBe(1)
  expect(await log.lag()).toMatchObject([{ pending: 0, delivered: 3, undelivered: 0 }])
  expect(await log.gaps()).toEqual([])
})

test('a later generation of the log stays as long as a sink is in an earlier one', async () => {
  await log.createSink('sink')
  await log.write('2025-01', 'Old')
  await log.drain('sink')
  await sql`update public.events set epoch = 2`
  await sql`do $$ begin update tracking.log set epoch = 2; update tracking.log set written_by = xmin; end $$`
  expect(await drop()).toContainEqual(expect.objectContaining({ partition: january, dropped: false }))
})

/** Drops whatever is over, as the service role. */
async function drop() {
  const rows = await as(sql, service, (tx) => tx`select partition, dropped, events::int, reason from tracking.drop_partitions('1 month')`)
  return [...rows] as { partition: string, dropped: boolean, events: number | null, reason: string | null }[]
}

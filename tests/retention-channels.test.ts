import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Sql } from 'postgres'
import { connect } from '../src/database.ts'
import { orgs } from './demo.ts'
import { openEmptyLog, thisMonth, type Log } from './log.ts'
import { as, failureOf, service } from './sessions.ts'
import { until } from './workers.ts'
import type { Clone } from './world.ts'

// What tracking.retention has gone, by channel: while others write, read and deliver.

let clone: Clone
let sql: Sql
let log: Log
let close: () => Promise<void>

beforeEach(async () => { ({ clone, sql, log, close } = await openEmptyLog('2025-01', '2025-02')) })
afterEach(() => close())

const [january, february] = ['tracking.events_2025_01', 'tracking.events_2025_02']

test('channels whose time is over go out of their months, and nothing else changes', async () => {
  // Given events of three channels, of an org and of people, that sinks had, want in part, refused and have before them
  await log.write('2025-01', { channel: 'noise' }, 'Noise 1', 'Noise 2', 'Bad noise')
  await log.write('2025-01', { org: orgs.acme }, 'Kept 1')
  await log.createSink('done')
  await log.createSink('some', { events: ['Noise *'], shards: 3 })
  await log.createSink('late', { fromBeginning: false })
  await log.write('2025-01', { channel: 'noise', org: orgs.acme }, 'Noise 3')
  await log.write('2025-01', { channel: 'other' }, 'Kept 2')
  await log.write('2025-02', { channel: 'noise' }, 'Noise 4')
  await log.write(thisMonth(), { channel: 'noise' }, 'New noise')
  const batch = await log.lease('done')
  await log.complete(batch, batch!.events.filter(({ event }) => event === 'Bad noise').map((event) => ({ event, error: '400' })))
  for (const sink of ['some', 'late']) await log.drain(sink)
  await log.rollUp()
  await log.write(thisMonth(), 'Unrolled')
  const before = await rows()
  const lag = await log.lag()
  const shape = await shapeOf(january)

  // When a channel is kept for a month, and the rest for ever
  await keep('noise', '1 month')
  expect(await apply()).toEqual([
    { partition: january, channels: ['noise'], dropped: true, events: 4, reason: null },
    { partition: february, channels: null, dropped: true, events: 1, reason: null },
  ])

  // Then the others are there as they were, and the month is as closed, and as fast, as before
  expect(await rows()).toEqual(before.filter(({ event, at }) => event.channel !== 'noise' || at === thisMonth()))
  expect(await log.names()).toEqual(['Kept 1', 'Kept 2', 'New noise', 'Unrolled'])
  expect(await shapeOf(january)).toEqual(shape)
  expect(await sql`select 1 as one from pg_class where relname like 'events%kept'`).toEqual([])

  // And nothing is missed in the books, nor in the rollup; the letter is kept
  expect(await log.gaps()).toEqual([])
  expect(await log.lag()).toEqual(lag)
  expect(await log.rollupErrors()).toEqual([])
  expect(await sql`select event ->> 'event' as event from tracking.undelivered`).toEqual([{ event: 'Bad noise' }])
  expect(await sql`select partition, channels, events::int from tracking.dropped_partitions order by partition`).toEqual([
    { partition: january, channels: ['noise'], events: 4 }, { partition: february, channels: null, events: 1 }])

  // And it is over with that; a replay has what there is, and says what it has not
  expect(await apply()).toEqual([])
  expect(await log.rewind('done', '2020-01-01')).toBe(5)
  expect(await log.drain('done')).toEqual(['Kept 1', 'Kept 2', 'New noise', 'Unrolled'])
  expect(await log.gaps()).toEqual([])

  // And what comes for such a month later goes when the sinks have it
  await log.write('2025-01', { channel: 'noise' }, 'Straggler')
  expect(await apply()).toMatchObject([{ partition: january, dropped: false, reason: 'These sinks are not done with it: done, late, some.' }])
  for (const sink of ['done', 'some', 'late']) await log.drain(sink)
  expect(await apply()).toEqual([{ partition: january, channels: ['noise'], dropped: true, events: 1, reason: null }])
  expect(await log.gaps()).toEqual([])
  expect(await log.rollupErrors()).toEqual([])
})

test('each channel is kept as long as its own row says, or else the row of all others; without one, for ever', async () => {
  await log.write('2025-01', { channel: 'short' }, 'Short')
  await log.write('2025-01', { channel: 'long' }, 'Long')
  await log.write('2025-01', { channel: 'other' }, 'Other')
  await log.rollUp()
  expect(await apply()).toEqual([])
  await keep('long', '100 years')
  expect(await apply()).toEqual([])
  await keep('short', '2 months')
  expect(await apply()).toMatchObject([{ partition: january, channels: ['short'], events: 1 }])
  await keep('*', '3 months')
  expect(await apply()).toMatchObject([{ partition: january, channels: ['other'], events: 1 }])
  expect(await log.names()).toEqual(['Long'])
  expect(await sql`select to_regclass(${february}) is not null as there`).toEqual([{ there: true }])

  // A month goes when all that it has is over; an empty one when everything would be
  await keep('long', '1 year')
  expect(await apply()).toMatchObject([{ partition: january, channels: null, events: 1 }, { partition: february, channels: null, events: 0 }])
  expect(await log.names()).toEqual([])
  expect(await log.rollupErrors()).toEqual([])
})

test('a month is over when so much time has passed since its end', async () => {
  await log.write('2025-01', 'Old')
  const since = async (moment: string) => (await sql<{ span: string }[]>`select (now() - ${moment}::text::timestamptz)::text as span`)[0]!.span
  await keep('*', await since('2025-01-31T23:59:59Z'))
  expect(await apply()).toEqual([])
  await keep('*', await since('2025-02-01T00:00:00Z'))
  expect(await apply()).toMatchObject([{ partition: january, dropped: true }])
})

test('a sink holds back what it has still to get, and not what is beside it', async () => {
  await log.write('2025-01', { channel: 'noise' }, 'Noise')
  await log.createSink('sink')
  await log.drain('sink')
  await log.write('2025-01', { channel: 'kept' }, 'Kept 1', 'Kept 2')
  const batch = await log.lease('sink', 1)
  await keep('noise', '1 month')
  expect(await apply()).toMatchObject([{ partition: january, channels: ['noise'], dropped: true, events: 1 }])
  await log.complete(batch)
  expect(await log.drain('sink')).toEqual(['Kept 2'])
  expect(await log.gaps()).toEqual([])
})

test('a copy is put in place without a look at each of its rows', async () => {
  await log.write('2025-01', { channel: 'noise' }, 'Noise')
  await log.write('2025-01', { channel: 'kept' }, 'Kept')
  await keep('noise', '1 month')
  const said: string[] = []
  const connection = connect(clone.databaseUrl, { max: 1, onnotice: ({ message }) => said.push(message!) })
  await connection`set client_min_messages = debug1`
  expect(await connection`select dropped from tracking.apply_retention()`).toEqual([{ dropped: true }])
  await connection.end()
  expect(said).toContain('partition constraint for table "events_2025_01" is implied by existing constraints')
})

test('nobody who writes waits while a month is copied', async () => {
  await log.write('2025-01', { channel: 'noise' }, 'Noise')
  const copying = await log.begin()
  await copying.sql`select tracking.prepare_departure(${january}, '2025-01-01Z', '2025-02-01Z', '{noise}')`
  await sql`set lock_timeout = '1s'`
  await log.write('2025-01', { channel: 'kept' }, 'Meanwhile')
  await log.write(thisMonth(), 'New')
  await copying.sql`rollback`
  copying.sql.release()
  expect(await log.names()).toEqual(['Meanwhile', 'New', 'Noise'])
})

test('what is written to a month while it is copied keeps it, and the other months go all the same', async () => {
  await log.write('2025-01', { channel: 'noise' }, 'Noise 1')
  await log.write('2025-01', { channel: 'kept' }, 'Kept 1')
  await log.write('2025-02', { channel: 'noise' }, 'Noise 2')
  await log.write('2025-02', { channel: 'kept' }, 'Kept 2')
  await log.rollUp()
  await keep('noise', '1 month')
  await sql`alter function tracking.apply_retention set lock_timeout = '60s'`
  const writer = await log.begin()
  await log.write('2025-01', { channel: 'kept', on: writer.sql }, 'Just in time')
  const applied = apply()
  await until(async () => (await sql`select from pg_locks where relation = 'public.events'::regclass and not granted`).length > 0)
  await writer.commit()
  expect(await applied).toEqual([
    { partition: january, channels: ['noise'], dropped: false, events: null, reason: 'Events were just written to it.' },
    { partition: february, channels: ['noise'], dropped: true, events: 1, reason: null },
  ])
  expect(await log.names()).toEqual(['Just in time', 'Kept 1', 'Kept 2', 'Noise 1'])
  expect(await log.rollupErrors()).toEqual([])
  expect(await apply()).toMatchObject([{ partition: january, channels: ['noise'], dropped: true, events: 1 }])
  expect(await log.names()).toEqual(['Just in time', 'Kept 1', 'Kept 2'])
  expect(await log.rollupErrors()).toEqual([])
})

test('a reader keeps what it reads: who would take it away gives way, and has it at a later try', async () => {
  await log.write('2025-01', { channel: 'noise' }, ...Array.from({ length: 50 }, (_, n) => `Noise ${n}`))
  await log.write('2025-01', { channel: 'kept' }, 'Kept')
  await log.rollUp()
  await keep('noise', '1 month')
  const reader = await log.begin()
  await reader.sql`declare slowly cursor for select event from events`
  expect(await reader.sql`fetch 10 from slowly`).toHaveLength(10)
  expect(await failureOf(apply(2))).toMatchObject({ code: '55P03' })
  expect(await log.rollupErrors()).toEqual([])

  const applied = apply(30)
  const written = (async () => {
    for (let n = 0; n < 20; n++) await log.write(thisMonth(), `New ${n}`)
  })()
  await written
  expect(await reader.sql`fetch all from slowly`).toHaveLength(41)
  await reader.commit()
  expect(await applied).toMatchObject([{ partition: january, channels: ['noise'], dropped: true, events: 50 }])
  expect(await sql`select count(*)::int as n from events`).toEqual([{ n: 21 }])
  expect(await log.rollupErrors()).toEqual([])
})

test('who brings the rollup further waits for nobody meanwhile, and leaves it right', async () => {
  await log.write('2025-01', { channel: 'noise' }, 'Noise')
  await log.write('2025-01', { channel: 'kept' }, 'Kept')
  await log.rollUp()
  await log.write('2025-01', { channel: 'kept' }, 'Unrolled')
  await keep('noise', '1 month')
  await sql`alter function tracking.apply_retention set lock_timeout = '60s'`
  const reader = await log.begin()
  await reader.sql`select from events`
  const applied = apply()
  await until(async () => (await sql`select from pg_locks where relation = 'public.events'::regclass and not granted`).length > 0)
  // It looks at the row alone, and turns back: the log is asked for by those who are before it in line.
  expect(await sql`select from tracking.rollup for update skip locked`).toEqual([])
  await reader.commit()
  expect(await applied).toMatchObject([{ dropped: true }])
  await log.rollUp()
  expect(await log.rollupErrors()).toEqual([])
})

test('what is to be exported first stays until it was, as it is', async () => {
  await log.write('2025-01', { channel: 'audit' }, 'Audit')
  await log.write('2025-01', { channel: 'noise' }, 'Noise')
  await keep('audit', '1 month', true)
  await keep('noise', '100 years')
  expect(await apply()).toEqual([{ partition: january, channels: ['audit'], dropped: false, events: null, reason: 'It was not exported as it is.' }])
  await noteExport('2025-01')
  await log.write('2025-01', { channel: 'noise' }, 'More noise')
  expect(await apply()).toMatchObject([{ dropped: false, reason: 'It was not exported as it is.' }])
  await noteExport('2025-01')
  expect(await apply()).toMatchObject([{ channels: ['audit'], dropped: true, events: 1 }])
  expect(await failureOf(noteExport('2020-01'))).toMatchObject({ code: '42704', message: 'The log has no month 2020-01.' })
})

/** Lets go what is over, as the service role. */
async function apply(tries = 1) {
  const rows = await as(sql, service, (tx) => tx`
    select partition, channels, dropped, events::int, reason from tracking.apply_retention(${tries})`)
  return [...rows]
}

async function keep(channel: string, span: string, exportFirst = false): Promise<void> {
  await as(sql, service, (tx) => tx`
    insert into tracking.retention (channel, keep, export_first)
    values (${channel}, ${span}::text::interval, ${exportFirst})
    on     conflict (channel) do update set keep = excluded.keep`)
}

async function noteExport(month: string): Promise<void> {
  await as(sql, service, (tx) => tx`
    select tracking.note_export(${`${month}-01`}::text::timestamp, 'a file', 1, tracking.current_snapshot())`)
}

/** Every event as it is, and its month. */
async function rows() {
  return [...await sql<{ event: Record<string, unknown>, at: string }[]>`
    select to_jsonb(e) as event, to_char(e.occurred_at at time zone 'UTC', 'YYYY-MM') as at from events as e order by e.event`]
}

/** What a partition is, but for its rows and the names of its indexes. */
async function shapeOf(partition: string) {
  return [...await sql`
    select pg_get_expr(c.relpartbound, c.oid) as bounds, c.relrowsecurity, c.relacl::text, obj_description(c.oid) as comment,
           array(select conname || pg_get_constraintdef(oid) from pg_constraint where conrelid = c.oid and contype = 'c' order by 1) as checks,
           array(
             select regexp_replace(pg_get_indexdef(i.indexrelid), 'INDEX \\S+', 'INDEX') || i.indisvalid
                    || (select inhparent::regclass from pg_inherits where inhrelid = i.indexrelid)
             from   pg_index as i
             where  i.indrelid = c.oid
             order  by 1) as indexes,
           array(select attname || coalesce(pg_get_expr(adbin, adrelid), '') || attnotnull
                 from pg_attribute left join pg_attrdef on (adrelid, adnum) = (attrelid, attnum)
                 where attrelid = c.oid and attnum > 0 order by attnum) as columns
    from   pg_class as c
    where  c.oid = ${partition}::regclass`]
}

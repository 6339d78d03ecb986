import type { Sql } from 'postgres'
import { expect } from 'vitest'
import { connect } from '../src/database.ts'
import { people } from './demo.ts'
import { cloneDatabase, templates } from './world.ts'

/** What a worker leases, as far as these tests look at it. */
export type Batch = {
  sink: string
  shard: number
  lease: string
  events: { event: string, event_id: string, scope_id: string, actor_id: string | null, txid: string }[]
}

export type SinkOptions = { fromBeginning?: boolean, shards?: number, events?: string[] }

/** Who writes events, when, and where; the names are strings beside it. */
export type Writing = { actor?: string, org?: string, channel?: string, on?: Sql }

/** A log that is written, delivered and rewound by SQL alone. */
export type Log = ReturnType<typeof logOf>

/** The demo world in a database of one's own, with nothing in its log, and partitions for months of the past. */
export async function openEmptyLog(...months: string[]) {
  const clone = await cloneDatabase(templates.world)
  const sql = connect(clone.databaseUrl)
  await sql`delete from public.events`
  for (const month of months) await sql`select tracking.make_partition(${`${month}-01`}::timestamp)`
  const close = async () => {
    await sql.end({ timeout: 1 })
    await clone.drop()
  }
  return { clone, sql, log: logOf(sql), close }
}

/** The log of a database. */
export function logOf(sql: Sql) {
  const log = {
    /** Writes events that happened in a month, a second after one another, in one transaction. */
    async write(month: string, ...events: (string | Writing)[]): Promise<void> {
      const [options] = events.filter((event) => typeof event !== 'string')
      const { actor = people.ada, org = null, channel = 'default', on = sql } = options ?? {}
      await on`
        insert into events (scope_id, org_id, actor_id, occurred_at, event_id, event, channel, source)
        select ${org ?? actor}, ${org}, ${actor}, tracking.event_time(i.id), i.id, t.event, ${channel}, 'service'
        from   unnest(${events.filter((event) => typeof event === 'string')}::text[]) with ordinality as t (event, n),
               tracking.new_event_id(${`${month}-01`}::timestamp at time zone 'UTC' + t.n * interval '1 second') as i (id)`
    },

    async createSink(name: string, { fromBeginning = true, shards = 1, events }: SinkOptions = {}): Promise<void> {
      await sql`
        select tracking.create_sink(
          ${name}, 'ndjson', from_beginning => ${fromBeginning}, shards => ${shards}, events => ${events ?? null})`
    },

    /** A session in a transaction. */
    async begin() {
      const connection = await sql.reserve()
      await connection`begin`
      return { sql: connection, commit: async () => { await connection`commit`; connection.release() } }
    },

    async lease(sink: string, size = 500, seconds = 60): Promise<Batch | null> {
      const [batch] = await sql<Batch[]>`select * from tracking.lease_batch(${sink}, 'test', ${size}, ${seconds})`
      return batch ?? null
    },

    async complete(batch: Batch | null, undelivered: object[] = []): Promise<void> {
      const [row] = await sql`
        select tracking.complete_batch(
          ${batch!.sink}, ${batch!.shard}, ${batch!.lease}, ${sql.json(undelivered as never)}) as done`
      expect(row?.done).toBe(true)
    },

    async drain(sink: string): Promise<string[]> {
      const all: string[] = []
      for (let batch = await log.lease(sink); batch; batch = await log.lease(sink)) {
        all.push(...batch.events.map(({ event }) => event))
        await log.complete(batch)
      }
      return all
    },

    async settle(sink: string, outcome: string, event: object): Promise<number> {
      const { scope_id, event_id } = event as Batch['events'][number]
      const [row] = await sql`
        select tracking.settle_undelivered(${sink}, ${outcome}, ${sql.json([{ scope_id, event_id }])}) as n`
      return row?.n
    },

    async rewind(sink: string, to: string): Promise<number> {
      return Number((await sql`select tracking.rewind_sink(${sink}, ${to}::text::timestamptz) as gone`)[0]?.gone)
    },

    async lag() {
      const rows = await sql<{ sink: string, pending: number, delivered: number, filtered: number, undelivered: number }[]>`
        select sink, pending::int, delivered::int, filtered::int, undelivered::int from tracking.sink_lag order by sink`
      return [...rows]
    },

    gaps: async () => [...await sql`select * from tracking.delivery_gaps`],

    /** The names of the events that there are, in order. */
    async names(): Promise<string[]> {
      return (await sql<{ event: string }[]>`select event from events order by event`).map(({ event }) => event)
    },

    /** Brings the rollup up to the log. */
    async rollUp(): Promise<void> {
      while (Number((await sql`select tracking.roll_up() as n`)[0]?.n) > 0);
    },

    /** How the rollup differs from the log, by scope, event, channel, actor and hour, and the days from it: not at all. */
    async rollupErrors() {
      return [...await log.hourErrors(), ...await log.dayErrors()]
    },

    async dayErrors() {
      return [...await sql`
        with activity as (
          select distinct c.circle, n.event, n.channel, n.day, c.member
          from   tracking.activity as a
          cross  join lateral (select (a.hour at time zone 'UTC')::date as day) as d
          join   tracking.kinds as k using (kind_id)
          cross  join lateral (values (k.org_id, a.actor_id), (tracking.everybody(), a.actor_id), (tracking.all_orgs(), k.org_id)) as c (circle, member)
          cross  join lateral (values (k.event, k.channel, d.day), ('', '', d.day), ('', k.surface, '-infinity')) as n (event, channel, day)
          where  num_nulls(c.circle, c.member, n.channel) = 0
        ),
        days as (
          select k.scope_id, k.event, k.channel, d.day, m.member
          from   tracking.days as d
          join   tracking.kinds as k using (kind_id)
          join   tracking.members as m on m.circle = k.scope_id and m.number >> 12 = d.page
          where  (m.number & 4095) < length(d.members)
          and    get_bit(d.members, m.number & 4095) = 1
        )
        (select 'only in the activity', * from activity except all select 'only in the activity', * from days)
        union all
        (select 'only in the days', * from days except all select 'only in the days', * from activity)
        union all
        select 'of no day', m.circle, null, null, null, m.member from tracking.members as m
        where  not exists (select from days as d where (d.scope_id, d.member) = (m.circle, m.member))
        union all
        select 'of no kind', null, null, null, d.day, null from tracking.days as d
        where  not exists (select from tracking.kinds as k where k.kind_id = d.kind_id)`]
    },

    async hourErrors() {
      return [...await sql`
        with log as (
          select scope_id, org_id, app_id, event, channel, actor_id, date_trunc('hour', occurred_at, 'UTC') as hour,
                 count(*) as events
          from   events
          group  by 1, 2, 3, 4, 5, 6, 7
        ),
        rollup as (
          select scope_id, org_id, app_id, event, channel, actor_id, hour, sum(events) as events
          from   tracking.hours
          group  by 1, 2, 3, 4, 5, 6, 7
        )
        (select 'only in the log', * from log except all select 'only in the log', * from rollup)
        union all
        (select 'only in the rollup', * from rollup except all select 'only in the rollup', * from log)`]
    },
  }
  return log
}

export const thisMonth = () => new Date().toISOString().slice(0, 7)

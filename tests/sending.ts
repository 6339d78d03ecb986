import type { Sql } from 'postgres'
import { expect } from 'vitest'
import { deliverOnce, endWithin, type Courier } from '../src/delivery.ts'
import { leaseBatch, type Batch } from '../src/lease.ts'
import { loadSecrets } from '../src/secrets.ts'
import { SinkError, type EventRow, type Sink, type SinkContext, type SinkSettings } from '../src/sink.ts'
import { openSink } from '../src/sinks.ts'
import type { World } from './world.ts'

/** How a sink is run in a test. */
export type Running = {
  environment?: Record<string, string>
  fetch?: typeof fetch
  size?: number
  log?: SinkContext['log']
}

/** Makes a sink that begins with what is committed from now on. */
export async function createSink(sql: Sql, name: string, kind: string, settings: object = {}): Promise<void> {
  await sql`select tracking.create_sink(${name}, ${kind}, ${sql.json(settings as never)})`
}

export async function lease(sql: Sql, sink: string): Promise<Batch | undefined> {
  return leaseBatch({ sql, worker: 'test' }, sink)
}

/** Opens the sink of a batch, with its secrets from this environment. */
export async function open(sql: Sql, batch: SinkSettings, running: Running = {}): Promise<Sink> {
  const { environment = {}, fetch = globalThis.fetch, log = () => {} } = running
  return openSink(batch, { secret: await loadSecrets(batch, environment, sql), fetch, sql, log })
}

/**
 * Delivers all that a sink has before it, as a worker does, and stops where it must be tried again later.
 *
 * @returns the sink's last error where it stopped; null where all is delivered, or given up.
 */
export async function deliver(sql: Sql, sink: string, running: Running = {}): Promise<SinkError | null> {
  let last: SinkError | null = null
  const note = (error: unknown): never => {
    if (error instanceof SinkError) last = error
    throw error
  }
  const courier: Courier = {
    sql, worker: 'test', batchSize: running.size,
    open: async (batch) => {
      const opened = await open(sql, batch, running).catch(note)
      return { ...opened, send: (events, signal) => opened.send(events, signal).catch(note) }
    },
  }
  const next = () => deliverOnce(courier, sink, endWithin(30, new AbortController().signal))
  for (let outcome = await next(); outcome; outcome = await next()) {
    if (outcome.result === 'failed') return last
    expect(outcome.result).toBe('delivered')
  }
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  return null
}

/** Tracks payloads as somebody of the demo world, all in one transaction. */
export type Track = (email: string, ...payloads: object[]) => Promise<void>

/** Tracks through a world's API; version 2, unless a payload says otherwise. */
export function trackIn(world: World): Track {
  const clients = new Map<string, ReturnType<World['signIn']>>()
  return async (email, ...payloads) => {
    if (!clients.has(email)) clients.set(email, world.signIn(email))
    const client = await clients.get(email)!
    const v2 = payloads.map((payload) => ({ tracking_version: 2, ...payload }))
    const { data, error } = await client.rpc('track_events', { v2 })
    expect([error, data?.accepted, data?.dropped]).toEqual([null, payloads.length, 0])
  }
}

/** Lets a sink that failed be tried at once. */
export async function retryNow(sql: Sql, sink: string): Promise<void> {
  await sql`update tracking.cursors set retry_at = null where sink = ${sink}`
}

/** Sends everything again. */
export async function rewind(sql: Sql, sink: string): Promise<void> {
  await sql`select tracking.rewind_sink(${sink}, '-infinity')`
}

/** Dead letters of a sink: names of events, and why. */
export async function deadLetters(sql: Sql, sink: string): Promise<[event: string, error: string][]> {
  const rows = await sql<{ event: string, error: string }[]>`
    select event ->> 'event' as event, error from tracking.undelivered where sink = ${sink} order by event_id`
  return rows.map(({ event, error }) => [event, error])
}

/** Writes a row of the log as nobody but the database's owner can; `age` is how long before now it was received. */
export async function writeEvent(sql: Sql, row: Partial<EventRow> & { occurred?: Date }): Promise<string> {
  const { occurred = new Date(), ...named } = row
  const columns = { event: 'Written', actor_id: null, org_id: null, source: 'service', ...named }
  const [written] = await sql<{ event_id: string }[]>`
    insert into public.events (
      scope_id, occurred_at, event_id, event, actor_id, org_id, app_id, channel, description, icon, parser,
      notify, tags, context, tracking_version, source, received_at)
    select coalesce(r.org_id, r.actor_id), tracking.event_time(i.id), i.id, r.event, r.actor_id, r.org_id, r.app_id,
           coalesce(r.channel, 'default'), r.description, r.icon, r.parser, coalesce(r.notify, false),
           coalesce(r.tags, '{}'), coalesce(r.context, '{}'), coalesce(r.tracking_version, 2), r.source,
           coalesce(r.received_at, now())
    from   jsonb_populate_record(null::public.events, ${sql.json(columns as never)}) as r,
           tracking.new_event_id(${occurred}) as i (id)
    returning event_id`
  return written!.event_id
}

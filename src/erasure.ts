import type { Sql } from 'postgres'
import { SinkError, type Erased, type Notice, type SinkContext, type SinkSettings } from './sink.ts'
import { tellOfErasure } from './sinks.ts'

// Erasures that were asked for are brought to their end, and sinks told of them. What is erased, and when whom to tell,
// is for the database to say (chapter 9.1).

/** What erasures are worked on with. */
export type ErasureContext = {
  readonly sql: Sql
  /** What a sink needs. */
  contextOf(sink: SinkSettings): Promise<SinkContext>
  /** Says to stop. */
  readonly signal: AbortSignal
  log(message: string, fields?: Record<string, unknown>): void
}

/** What was done: events erased, erasures that have nothing left, sinks told, sinks to be told later. */
export type ErasureCounts = { events: number, erased: number, told: number, failed: number }

/** Erases what is left to erase, and tells the sinks that are to be told, until that is done or it is time to stop. */
export async function workOnErasures(context: ErasureContext): Promise<ErasureCounts> {
  const counts: ErasureCounts = { events: 0, erased: 0, told: 0, failed: 0 }
  const open = await context.sql<{ id: string, events: number }[]>`
    select e.id, e.events::float8 as events from tracking.erasures as e where e.erased_at is null order by e.asked_at`
  for (const { id, events } of open) {
    const before = counts.events
    const moved = (reached: Reached) => { counts.events = before + Math.max(0, reached.events - events) }
    const reached = await continueErasure(context, id, moved).catch(unlessInTheWay)
    if (reached?.done) counts.erased++
  }
  await tellSinks(context, counts)
  return counts
}

/** Somebody who is in the way is there for a moment: the next run goes on. */
function unlessInTheWay(error: { code?: string }): undefined {
  if (error.code !== '55P03') throw error
}

/** How far an erasure is. */
export type Reached = { erasure: string, events: number, done: boolean, waitsFor: string[] | null }

/** Does the bites of an erasure, until it is done, waits for a batch that is under way, or it is time to stop. */
export async function continueErasure(
  { sql, signal }: Pick<ErasureContext, 'sql' | 'signal'>, id: string, moved = (_: Reached) => {},
): Promise<Reached> {
  for (;;) {
    const [reached] = await sql<Reached[]>`
      select erasure, events::float8 as events, done, waits_for as "waitsFor" from tracking.continue_erasure(${id})`
    moved(reached!)
    if (reached!.done || reached!.waitsFor || signal.aborted) return reached!
  }
}


// Telling -------------------------------------------------------------------------------------------

/** A sink that is to be told, if it is there still. */
type Due = Erased & { name: string, sink: string | null, kind: string, settings: Record<string, unknown>, enabled: boolean }

async function tellSinks(context: ErasureContext, counts: ErasureCounts): Promise<void> {
  // A sink that is out of order, or has enough of requests, is not asked again before the next run.
  const troubled: string[] = []
  while (!context.signal.aborted) {
    const [due] = await readDue(context.sql, troubled)
    if (!due) return
    const outcome = await tell(context, due)
    if (outcome === 'waiting') troubled.push(due.name)
    if (outcome === 'told') counts.told++
    if (outcome === 'waiting') counts.failed++
  }
}

async function readDue(sql: Sql, troubled: string[]): Promise<Due[]> {
  return sql<Due[]>`
    select n.erasure, n.name, s.name as sink, s.kind, s.settings, s.enabled, e.subject, e.subject_id as id, e.email,
           to_json(e.erased_at) #>> '{}' as erased_at
    from   tracking.erasure_notices as n
    join   tracking.erasures as e on e.id = n.erasure
    left   join tracking.sinks as s on s.name = n.sink
    where  n.outcome = 'waiting'
    and    n.retry_at <= now()
    and    n.name <> all (${troubled}::text[])
    order  by n.retry_at
    limit  1`
}

type Outcome = Notice['outcome'] | 'waiting'

async function tell(context: ErasureContext, due: Due): Promise<Outcome> {
  try {
    const { outcome, detail } = await askSink(context, due)
    await settle(context.sql, due, outcome, detail)
    return outcome
  } catch (error) {
    const { message, retryAfterMs = 0 } = error instanceof SinkError ? error : { message: String(error) }
    context.log('a sink could not be told of an erasure', { sink: due.name, erasure: due.erasure, error: message })
    await settle(context.sql, due, 'waiting', message, retryAfterMs)
    return 'waiting'
  }
}

async function askSink({ contextOf, signal }: ErasureContext, due: Due): Promise<Notice> {
  const { sink, kind, settings, enabled } = due
  if (sink === null) return { outcome: 'impossible', detail: 'The sink is no more.' }
  if (!enabled) throw new SinkError('retry', 'The sink is disabled.')
  const { erasure, subject, id, email, erased_at } = due
  const opened = { sink, kind, settings }
  return tellOfErasure(opened, await contextOf(opened), { erasure, subject, id, email, erased_at }, signal)
}

async function settle(sql: Sql, { erasure, name }: Due, outcome: Outcome, detail: string, retryAfterMs = 0): Promise<void> {
  await sql`
    select tracking.settle_notice(
      ${erasure}, ${name}, ${outcome}, ${detail}, make_interval(secs => ${retryAfterMs / 1000}))`
}

import type { Sql } from 'postgres'
import { workOnErasures } from './erasure.ts'
import { reconcile } from './reconcile.ts'
import { loadSecrets, type Environment } from './secrets.ts'
import type { SinkContext, SinkSettings } from './sink.ts'

// What is done on a schedule besides delivering. The database says whose turn it is (tracking.jobs), so of any number
// of workers one does each job at a time.

/** What jobs are done with. */
export type JobContext = {
  /** The database, with the rights of the service role. */
  readonly sql: Sql
  /** Who is at work. */
  readonly worker: string
  /** Where the builder is, and its key; without them it is not asked. */
  readonly builder?: { url: string, apiKey: string }
  /** Whether there is less than a minute for all of it; default false. */
  readonly isBrief?: boolean
  /** What a sink needs to be spoken to. */
  contextOf(sink: SinkSettings): Promise<SinkContext>
  readonly fetch: typeof fetch
  log(message: string, fields?: Record<string, unknown>): void
  readonly signal: AbortSignal
}

/** A job: how often it is due, how long it may take before another worker has a go, and what it is. */
type Job = {
  everySeconds: number
  maxSeconds: number
  isPossible?(context: JobContext): boolean
  run(context: JobContext): Promise<Counts>
}

/** What a job did to how many. */
type Counts = Record<string, number>

const jobs: Record<string, Job> = {
  'make-partitions': {
    everySeconds: 3600, maxSeconds: 300,
    run: ({ sql }) => counts(sql`select tracking.make_partitions() as made`),
  },
  'roll-up': {
    everySeconds: 5, maxSeconds: 300,
    run: ({ sql, signal }) => rollUp(sql, signal),
  },
  'apply-retention': {
    everySeconds: 3600, maxSeconds: 3600,
    isPossible: ({ isBrief = false }) => !isBrief, // a month may have to be copied
    run: ({ sql }) => counts(sql`
      select count(*) filter (where dropped) as dropped, coalesce(sum(events), 0) as events
      from   tracking.apply_retention()`),
  },
  'work-on-erasures': {
    everySeconds: 15, maxSeconds: 300,
    run: ({ sql, contextOf, log, signal }) => workOnErasures({
      sql, contextOf, log, signal: AbortSignal.any([signal, AbortSignal.timeout(200_000)]) }),
  },
  'reconcile-builds': {
    everySeconds: 60, maxSeconds: 300,
    run: ({ sql }) => counts(sql`select timed_out, expired from tracking.reconcile_builds()`),
  },
  'retry-dead-letters': {
    everySeconds: 60, maxSeconds: 300,
    run: ({ sql }) => counts(sql`select written, failed from tracking.retry_dead_letters()`),
  },
  'ask-builder': {
    everySeconds: 60, maxSeconds: 240,
    isPossible: ({ builder }) => builder !== undefined,
    run: ({ sql, builder, fetch, log, signal }) => reconcile({
      sql, fetch, log, signal: AbortSignal.any([signal, AbortSignal.timeout(200_000)]), ...builder! }),
  },
}

/** Brings the rollup that analysts' questions are answered from up to the log, or as far as a minute takes it. */
async function rollUp(sql: Sql, signal: AbortSignal): Promise<Counts> {
  const endsAt = Date.now() + 60_000
  let events = 0
  for (;;) {
    const { added = 0 } = await counts(sql`select tracking.roll_up() as added`)
    events += added
    if (added === 0 || signal.aborted || Date.now() > endsAt) return { events }
  }
}

async function counts(query: PromiseLike<readonly Record<string, unknown>[]>): Promise<Counts> {
  const [row = {}] = await query
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, Number(value)]))
}

/** The names of the jobs. */
export const jobNames = Object.keys(jobs)

/** What came of a job. */
export type JobOutcome = { job: string, seconds: number, result?: Counts, error?: string }

/**
 * Does a job, where it is due and nobody is at it.
 *
 * @returns what came of it; undefined where there was nothing to do.
 * @throws what the database says of the schedule; a job that fails is an outcome.
 */
export async function doJob(name: string, context: JobContext): Promise<JobOutcome | undefined> {
  const { everySeconds, maxSeconds, isPossible = () => true, run } = jobs[name]!
  if (!isPossible(context)) return undefined
  const { sql, worker } = context
  const [turn] = await sql<{ taken: boolean }[]>`select tracking.take_job(${name}, ${worker}, ${maxSeconds}) as taken`
  if (!turn?.taken) return undefined
  const started = performance.now()
  const outcome: Pick<JobOutcome, 'result' | 'error'> = await run(context).then(
    (result) => ({ result }),
    (error: unknown) => ({ error: error instanceof Error ? error.message : String(error) }))
  const seconds = (performance.now() - started) / 1000
  const { error = null } = outcome
  await sql`select tracking.end_job(${name}, ${worker}, make_interval(secs => ${everySeconds}), ${error})`
  return { job: name, seconds, ...outcome }
}

/** Finds the builder: BUILDER_URL in the environment, and BUILDER_API_KEY there or in Supabase's Vault. */
export async function findBuilder(environment: Environment, sql: Sql): Promise<JobContext['builder']> {
  const { BUILDER_URL: url } = environment
  if (!url) return undefined
  const secret = await loadSecrets({ sink: 'builder', kind: 'builder', settings: {} }, environment, sql)
  const apiKey = secret('api_key')
  return apiKey ? { url, apiKey } : undefined
}

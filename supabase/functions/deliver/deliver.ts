// Delivery on a schedule, for projects that run no worker: pg_cron has pg_net call this function, and it delivers what
// the sinks have before them, does the jobs that are due, and answers with what it did. It may run beside workers, and
// beside itself: the database says who gets what.
//
// What it shares with the worker is in ../../../src; `supabase functions deploy` takes along whatever is imported.
import type { Sql } from 'postgres'
import { drain, endWithin, readSinks } from '../../../src/delivery.ts'
import type { Courier, EnabledSink, Ending, Outcome } from '../../../src/delivery.ts'
import { doJob, findBuilder, jobNames, type JobOutcome } from '../../../src/jobs.ts'
import { openPool } from '../../../src/pool.ts'
import { loadSecrets, redact, secretsIn } from '../../../src/secrets.ts'
import type { SinkContext, SinkSettings } from '../../../src/sink.ts'
import { openSink } from '../../../src/sinks.ts'

/** What the function is set up with. */
export type DeliverSettings = {
  databaseUrl: string
  /** Whoever shows one of these may call. */
  keys: string[]
  /** How long a run may take, at most. */
  seconds: number
  /** Where secrets of sinks are. */
  environment: Record<string, string>
}

/**
 * Reads the settings from the environment: SUPABASE_DB_URL, SUPABASE_SERVICE_ROLE_KEY and SUPABASE_SECRET_KEYS, which
 * Supabase gives every function, and DELIVER_SECRET and DELIVER_SECONDS (50), which it may be given.
 *
 * @throws {Error} where one is missing or wrong.
 */
export function readDeliverSettings(environment: Record<string, string>): DeliverSettings {
  const { SUPABASE_DB_URL: databaseUrl, DELIVER_SECRET, SUPABASE_SERVICE_ROLE_KEY } = environment
  const { SUPABASE_SECRET_KEYS = '{}', DELIVER_SECONDS = '50' } = environment
  const keys = [DELIVER_SECRET, SUPABASE_SERVICE_ROLE_KEY, ...Object.values<string>(JSON.parse(SUPABASE_SECRET_KEYS))]
    .filter((key): key is string => key !== undefined && key !== '')
  if (!databaseUrl || keys.length === 0) {
    throw new Error(
      'SUPABASE_DB_URL, and SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS or DELIVER_SECRET, must be set.')
  }
  const seconds = Number(DELIVER_SECONDS)
  if (!(seconds >= 1 && seconds <= 390)) throw new Error('DELIVER_SECONDS is a number of seconds from 1 to 390.')
  return { databaseUrl, keys, seconds, environment }
}

/** What became of a sink's batches in a run. */
export type SinkReport = {
  delivered: number
  undelivered: number
  batches: number
  result: Outcome['result'] | 'idle' | 'error'
  error?: string
  retry_at?: Date
}

/** What a run did. */
export type DeliverReport = {
  status: 'ok'
  seconds: number
  delivered: number
  undelivered: number
  sinks: Record<string, SinkReport>
  jobs: JobOutcome[]
}

/** Makes the function. */
export function createDeliver(settings: DeliverSettings): (request: Request) => Promise<Response> {
  return async ({ method, headers }) => {
    if (method !== 'POST') return refuse(405, 'method_not_allowed', 'Only POST is answered here', { Allow: 'POST' })
    if (!await mayCall(headers, settings.keys)) {
      return refuse(401, 'unauthenticated', 'Send the service role\'s key as a bearer token')
    }
    try {
      return Response.json(await deliver(settings))
    } catch (error) {
      const message = redact(messageOf(error), secretsOf(settings))
      console.error('Delivery failed:', message)
      return refuse(503, 'service_unavailable', message)
    }
  }
}

function refuse(status: number, error: string, message: string, headers?: Record<string, string>): Response {
  return Response.json({ error, message }, { status, headers })
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

function secretsOf({ keys, databaseUrl, environment }: DeliverSettings): string[] {
  return [...keys, ...secretsIn(environment, databaseUrl)]
}

/** Compared by their hashes, so that how long it takes says nothing. */
async function mayCall(headers: Headers, keys: string[]): Promise<boolean> {
  const shown = [headers.get('authorization')?.replace(/^bearer\s+/i, ''), headers.get('apikey')]
  let found = false
  for (const key of shown) for (const known of keys) found = await isSame(key ?? '', known) || found
  return found
}

async function isSame(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([hash(a), hash(b)])
  return one.reduce((difference, byte, n) => difference | (byte ^ other[n]!), 0) === 0
}

async function hash(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
}


// A run ---------------------------------------------------------------------------------------------

type Run = { sql: Sql, worker: string, ending: Ending, settings: DeliverSettings }

/** Delivers until there is nothing to do, or the time is up. */
async function deliver(settings: DeliverSettings): Promise<DeliverReport> {
  const started = performance.now()
  const sql = openPool(settings.databaseUrl, { prepare: false, max: 4, name: 'actorscope deliver' })
  const time = new Deadline(settings.seconds)
  const run: Run = { sql, worker: `deliver:${crypto.randomUUID().slice(0, 8)}`, ending: time.ending, settings }
  try {
    // A database that does not answer, such as one where somebody holds a lock, is not waited for any longer.
    const [sinks, jobs] = await Promise.race([Promise.all([deliverToAll(run), doJobs(run)]), time.isUp])
    const total = (figure: 'delivered' | 'undelivered') =>
      Object.values(sinks).reduce((sum, report) => sum + report[figure], 0)
    const seconds = Math.round((performance.now() - started) / 10) / 100
    return { status: 'ok', seconds, delivered: total('delivered'), undelivered: total('undelivered'), sinks, jobs }
  } finally {
    time.clear()
    await sql.end({ timeout: 0 })
  }
}

/** How long a run may take. */
class Deadline {
  /** No batch is begun in the last third of the time: that is for the one which is then under way, and to book it. */
  readonly ending: Ending
  /** Rejects when all of the time is over. */
  readonly isUp: Promise<never>
  private readonly timers: ReturnType<typeof setTimeout>[] = []

  constructor(seconds: number) {
    const closing = new AbortController()
    this.ending = endWithin(seconds * 0.25, closing.signal)
    this.timers.push(setTimeout(() => closing.abort(), seconds * 1000 * 2 / 3))
    this.isUp = new Promise((_, fail) => {
      const error = new Error(`The database had not answered when the ${seconds} seconds were up.`)
      this.timers.push(setTimeout(() => fail(error), seconds * 1000))
    })
    this.isUp.catch(() => {})
  }

  clear(): void {
    for (const timer of this.timers) clearTimeout(timer)
  }
}

async function deliverToAll(run: Run): Promise<Record<string, SinkReport>> {
  const sinks = await readSinks(run.sql)
  const reports = await Promise.all(sinks.map(async (sink) => [sink.name, await deliverTo(sink, run)] as const))
  return Object.fromEntries(reports)
}

const batchesAtOnce = 4

async function deliverTo({ name, shards }: EnabledSink, run: Run): Promise<SinkReport> {
  const report: SinkReport = { delivered: 0, undelivered: 0, batches: 0, result: 'idle' }
  const courier = courierOf(run)
  const ended = ({ result, delivered, undelivered, error, retryAt }: Outcome) => {
    report.delivered += delivered
    report.undelivered += undelivered
    report.batches++
    if (report.result === 'idle' || result !== 'delivered') Object.assign(report, { result, error, retry_at: retryAt })
  }
  try {
    const lanes = Math.min(shards, batchesAtOnce)
    await Promise.all(Array.from({ length: lanes }, () => drain(courier, name, run.ending, { ended })))
  } catch (error) {
    // One sink's trouble is no other's.
    Object.assign(report, { result: 'error', error: redact(messageOf(error), secretsOf(run.settings)) })
  }
  return report
}

function courierOf(run: Run): Courier {
  const { sql, worker } = run
  let context: Promise<SinkContext> | undefined
  return { sql, worker, open: async (batch) => openSink(batch, await (context ??= contextOf(batch, run))) }
}

async function contextOf(sink: SinkSettings, { sql, settings }: Run): Promise<SinkContext> {
  return {
    secret: await loadSecrets(sink, settings.environment, sql), fetch, sql,
    log: (message, fields) => tell(settings, { message, sink: sink.sink, ...fields }),
  }
}

async function doJobs(run: Run): Promise<JobOutcome[]> {
  const { sql, worker, ending, settings } = run
  const outcomes: JobOutcome[] = []
  for (const job of jobNames) {
    if (ending.closing.aborted) break
    const log = (message: string, fields?: object) => tell(settings, { message, job, ...fields })
    try {
      const builder = job === 'ask-builder' ? await findBuilder(settings.environment, sql) : undefined
      const outcome = await doJob(job, {
        sql, worker, builder, fetch, signal: ending.closing, log, isBrief: true,
        contextOf: (sink) => contextOf(sink, run) })
      if (outcome) outcomes.push(outcome)
    } catch (error) {
      outcomes.push({ job, seconds: 0, error: redact(messageOf(error), secretsOf(settings)) })
    }
  }
  return outcomes
}

function tell(settings: DeliverSettings, fields: Record<string, unknown>): void {
  console.log(redact(JSON.stringify(fields), secretsOf(settings)))
}

// Delivery on a schedule, for projects that run no worker: pg_cron has pg_net call this function, and it delivers what
// the sinks have before them, does the jobs that are due, and answers with what it did. It may run beside workers, and
// beside itself: the database says who gets what.
//
// What it shares with the worker is in ../../../src; `supabase functions deploy` takes along whatever is imported.
import type { Sql } from 'postgres'
import { drain, endWithin, type Courier, type Ending, type Outcome } from '../../../src/delivery.ts'
import { doJob, findBuilder, jobNames, type JobOutcome } from '../../../src/jobs.ts'
import { openPool } from '../../../src/pool.ts'
import { loadSecrets } from '../../../src/secrets.ts'
import { openSink, redact } from '../../../src/sink.ts'

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
  const { SUPABASE_DB_URL, SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS, DELIVER_SECRET, DELIVER_SECONDS = '50' } = environment
  const keys = [DELIVER_SECRET, SUPABASE_SERVICE_ROLE_KEY, ...Object.values<string>(SUPABASE_SECRET_KEYS ? JSON.parse(SUPABASE_SECRET_KEYS) : {})]
    .filter((key) => key !== undefined && key !== '') as string[]
  if (!SUPABASE_DB_URL || keys.length === 0) {
    throw new Error('SUPABASE_DB_URL, and SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS or DELIVER_SECRET, must be set.')
  }
  const seconds = Number(DELIVER_SECONDS)
  if (!(seconds >= 1 && seconds <= 390)) throw new Error('DELIVER_SECONDS is a number of seconds from 1 to 390.')
  return { databaseUrl: SUPABASE_DB_URL, keys, seconds, environment }
}

/** What became of a sink's batches in a run. */
export type SinkReport = { delivered: number, undelivered: number, batches: number, result: Outcome['result'] | 'idle' | 'error', error?: string, retry_at?: Date }

/** What a run did. */
export type DeliverReport = { status: 'ok', seconds: number, delivered: number, undelivered: number, sinks: Record<string, SinkReport>, jobs: JobOutcome[] }

/** Makes the function. */
export function createDeliver(settings: DeliverSettings): (request: Request) => Promise<Response> {
  return async (request) => {
    if (request.method !== 'POST') return refuse(405, 'method_not_allowed', 'Only POST is answered here', { Allow: 'POST' })
    if (!await mayCall(request.headers, settings.keys)) return refuse(401, 'unauthenticated', 'Send the service role\'s key as a bearer token')
    const sql = openPool(settings.databaseUrl, { prepare: false, max: 4, name: 'actorscope deliver' })
    try {
      return Response.json(await run(sql, settings))
    } catch (error) {
      const message = hideSecrets(error instanceof Error ? error.message : String(error), settings)
      console.error('Delivery failed:', message)
      return refuse(503, 'service_unavailable', message)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
}

function refuse(status: number, error: string, message: string, headers?: Record<string, string>): Response {
  return Response.json({ error, message }, { status, headers })
}

/** Compared by their hashes, so that how long it takes says nothing. */
async function mayCall(headers: Headers, keys: string[]): Promise<boolean> {
  const shown = [headers.get('authorization')?.replace(/^bearer\s+/i, ''), headers.get('apikey')].filter((key) => key !== undefined && key !== null)
  let found = false
  for (const key of shown) for (const known of keys) found = await isSame(key, known) || found
  return found
}

async function isSame(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map(async (text) => new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))))
  return one!.reduce((difference, byte, n) => difference | (byte ^ other![n]!), 0) === 0
}

function hideSecrets(text: string, { keys, databaseUrl, environment }: DeliverSettings): string {
  const secrets = Object.entries(environment).filter(([name, value]) => /SECRET|TOKEN|PASSWORD|_KEY$/.test(name) && value.length >= 6).map(([, value]) => value)
  const password = URL.canParse(databaseUrl) ? new URL(databaseUrl).password : ''
  return redact(text, [...keys, ...secrets, ...password.length >= 6 ? [password] : []])
}

/** Delivers until there is nothing to do, or the time is up. */
async function run(sql: Sql, settings: DeliverSettings): Promise<DeliverReport> {
  const started = performance.now()
  const worker = `deliver:${crypto.randomUUID().slice(0, 8)}`
  const timer = new AbortController()
  // The last part of the time is for the batch that is then under way.
  const timeout = setTimeout(() => timer.abort(), settings.seconds * 800)
  const ending = endWithin(settings.seconds * 0.2, timer.signal)
  try {
    const found = await sql<{ name: string, shards: number }[]>`
      select s.name, count(*)::integer as shards
      from   tracking.sinks as s
      join   tracking.cursors as c on c.sink = s.name
      where  s.enabled
      group  by s.name
      order  by s.name`
    const context = { sql, worker, ending, settings }
    const [sinks, jobs] = await Promise.all([
      Promise.all(found.map(async ({ name, shards }): Promise<[string, SinkReport]> => [name, await deliverTo(name, shards, context)])),
      doJobs(context),
    ])
    const total = (figure: 'delivered' | 'undelivered') => sinks.reduce((sum, [, report]) => sum + report[figure], 0)
    return {
      status: 'ok', seconds: Math.round((performance.now() - started) / 10) / 100,
      delivered: total('delivered'), undelivered: total('undelivered'), sinks: Object.fromEntries(sinks), jobs }
  } finally {
    clearTimeout(timeout)
  }
}

type Context = { sql: Sql, worker: string, ending: Ending, settings: DeliverSettings }

const batchesAtOnce = 4

async function deliverTo(sink: string, shards: number, { sql, worker, ending, settings }: Context): Promise<SinkReport> {
  const report: SinkReport = { delivered: 0, undelivered: 0, batches: 0, result: 'idle' }
  let secret: Promise<(name: string) => string | undefined> | undefined
  const courier: Courier = {
    sql, worker,
    open: async (batch) => openSink(batch, {
      secret: await (secret ??= loadSecrets(batch, settings.environment, sql)), fetch, sql,
      log: (message, fields) => console.log(hideSecrets(JSON.stringify({ message, sink, ...fields }), settings)) }),
  }
  const ended = ({ result, delivered, undelivered, error, retryAt }: Outcome) => {
    report.delivered += delivered
    report.undelivered += undelivered
    report.batches++
    if (report.result === 'idle' || result !== 'delivered') Object.assign(report, { result, error, retry_at: retryAt })
  }
  try {
    await Promise.all(Array.from({ length: Math.min(shards, batchesAtOnce) }, () => drain(courier, sink, ending, { ended })))
  } catch (error) {
    // One sink's trouble is no other's.
    Object.assign(report, { result: 'error', error: hideSecrets(error instanceof Error ? error.message : String(error), settings) })
  }
  return report
}

async function doJobs({ sql, worker, ending, settings: { environment } }: Context): Promise<JobOutcome[]> {
  const outcomes: JobOutcome[] = []
  for (const job of jobNames) {
    if (ending.closing.aborted) break
    const builder = job === 'ask-builder' ? await findBuilder(environment, sql) : undefined
    const outcome = await doJob(job, { sql, worker, builder, fetch, signal: ending.closing, log: (message, fields) => console.log(JSON.stringify({ message, job, ...fields })) })
    if (outcome) outcomes.push(outcome)
  }
  return outcomes
}

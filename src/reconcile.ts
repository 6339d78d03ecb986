import type { Sql } from 'postgres'
import { Builder, BuilderError, type BuilderOptions, type Job } from './builder.ts'

// Builds whose builder has gone quiet. What the builder says of their jobs is applied under compare-and-set, so that
// whoever else hears of it meanwhile wins, and nothing is said twice; what becomes an event is for the database
// (chapter 6).

/** What reconciliation needs; its signal ends it early. */
export type Reconciler = BuilderOptions & {
  /** The database, with the rights of the service role. */
  readonly sql: Sql
  /** Told of each build that could not be reconciled. */
  log(message: string, fields?: Record<string, unknown>): void
}

/** What became of how many builds. */
export type Reconciled = {
  /** The builder was asked about. */
  asked: number
  /** Are something else now: running, or over. */
  changed: number
  /** Of those, ended because they took too long. */
  timedOut: number
  /** Were changed by somebody else meanwhile. */
  lost: number
  /** Had ended as timed out before, and their job is stopped now. */
  stopped: number
  /** Could not be asked about, or stopped. */
  failed: number
}

const batch = 500
const atOnce = 10

/**
 * Asks the builder about the builds that have a job, are not over, and of which there was no news in five minutes; ends
 * those past their limit, as if in time, and has the builder stop their jobs. One build that fails leaves the others
 * alone; a builder that answers nobody is left alone.
 *
 * @returns what became of them.
 * @throws what the database says.
 */
export async function reconcile(reconciler: Reconciler): Promise<Reconciled> {
  const tally: Reconciled = { asked: 0, changed: 0, timedOut: 0, lost: 0, stopped: 0, failed: 0 }
  const builder = new Builder(reconciler)
  await inBatches(reconciler, quietBuilds, async (build) => {
    if (builder.isSilent) return
    tally.asked++
    const outcome = await attempt(reconciler, build, () => settle(reconciler, builder, build))
    if (outcome) tally[outcome]++
    if (outcome === 'timedOut') tally.changed++
  })
  await inBatches(reconciler, unstoppedBuilds, async (build) => {
    if (builder.isSilent) return
    const outcome = await attempt(reconciler, build, () => stop(reconciler, builder, build))
    if (outcome) tally[outcome]++
  })
  if (builder.isSilent) reconciler.log('the builder answers nobody, and is left alone for now')
  return tally
}

/** Has one failure be told, and be no other build's. The database's own failures end it all. */
async function attempt<T>(
  { log, signal }: Reconciler, { id, job }: Build, work: () => Promise<T>,
): Promise<T | 'failed' | undefined> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof BuilderError)) throw error
    if (signal.aborted) return undefined
    log('a build could not be reconciled', { build: id, job, error: error.message })
    return 'failed'
  }
}


// Builds --------------------------------------------------------------------------------------------

/** A build, as it was read. Times are texts: what is compared must be the same to the microsecond. */
type Build = {
  id: string
  owner_org: string
  job: string
  status: string
  is_old: boolean
  timeout_seconds: number
  updated_at: string
}

type Page = (sql: Sql, after: string) => Promise<Build[]>

const quietBuilds: Page = (sql, after) => sql<Build[]>`
  select b.id, b.owner_org, b.builder_job_id as job, b.status, b.timeout_seconds, b.updated_at::text,
         b.created_at < now() - interval '1 hour' as is_old
  from   public.build_requests as b
  where  b.lifecycle <> 'finished'
  and    b.builder_job_id is not null
  and    (
    b.updated_at < now() - interval '5 minutes'
    or b.started_at + make_interval(secs => b.timeout_seconds) <= now()
  )
  and    b.id > ${after}
  order  by b.id
  limit  ${batch}`

const unstoppedBuilds: Page = (sql, after) => sql<Build[]>`
  select b.id, b.owner_org, b.builder_job_id as job, b.status, b.timeout_seconds, b.updated_at::text, true as is_old
  from   public.build_requests as b
  where  b.status = 'timed_out'
  and    b.builder_job_id is not null
  and    b.job_stopped_at is null
  and    b.completed_at > now() - interval '1 day'
  and    b.id > ${after}
  order  by b.id
  limit  ${batch}`

/** Does something with every build, some of them at once. */
async function inBatches(
  { sql, signal }: Reconciler, page: Page, work: (build: Build) => Promise<void>,
): Promise<void> {
  for (let after = '00000000-0000-0000-0000-000000000000'; !signal.aborted;) {
    const builds = await page(sql, after)
    if (builds.length === 0) return
    after = builds.at(-1)!.id
    const rest = builds.values()
    const hands = Array.from({ length: atOnce }, async () => {
      for (const build of rest) if (!signal.aborted) await work(build)
    })
    await Promise.all(hands)
  }
}

type Change = {
  status: string
  error: string | null
  startedAt: string | null
  completedAt: string | null
  runnerWaitSeconds: number | null
  jobIsStopped: boolean
}

async function settle(
  reconciler: Reconciler, builder: Builder, build: Build,
): Promise<'changed' | 'timedOut' | 'lost' | undefined> {
  const job = await builder.ask(build.job)
  const change = job ? changeOf(build, job) : unknownJob(build)
  if (!change) throw new BuilderError('The builder does not know the job.')
  if (change.status === 'timed_out' && !change.jobIsStopped) {
    await builder.cancel(build.job)
    change.jobIsStopped = true
  }
  if (!await apply(reconciler.sql, build, change)) return 'lost'
  if (change.status === 'timed_out') return 'timedOut'
  return change.status === build.status ? undefined : 'changed'
}

// Also where nothing changes: updated_at is news, and the builder need not be asked again at once.
async function apply(sql: Sql, build: Build, change: Change): Promise<boolean> {
  const { count } = await sql`
    update public.build_requests as b
    set    status = ${change.status},
           last_error = ${change.error},
           started_at = coalesce(${change.startedAt}::text::timestamptz, b.started_at),
           completed_at = coalesce(${change.completedAt}::text::timestamptz, b.completed_at),
           runner_wait_seconds = coalesce(${change.runnerWaitSeconds}::integer, b.runner_wait_seconds),
           job_stopped_at = case when ${change.jobIsStopped} then clock_timestamp() end
    where  b.id = ${build.id}
    and    b.owner_org = ${build.owner_org}
    and    b.status = ${build.status}
    and    b.updated_at = ${build.updated_at}::text::timestamptz`
  return count > 0
}

/** What a job's state makes of a build. */
function changeOf(build: Build, job: Job): Change {
  const startedAt = timeOf(job.started_at)
  const completedAt = timeOf(job.completed_at)
  const ended = endings.has(job.status)
  const limit = startedAt === undefined ? Infinity : startedAt + build.timeout_seconds * 1000
  const common = { startedAt: isoOf(startedAt), runnerWaitSeconds: secondsOf(job.runner_wait_ms) }
  if ((completedAt ?? (ended ? -Infinity : Date.now())) >= limit) {
    return {
      ...common, status: 'timed_out', completedAt: isoOf(limit), jobIsStopped: ended,
      error: `The build ran longer than ${build.timeout_seconds} seconds.`,
    }
  }
  const status = ended || job.status === 'running' ? job.status : build.status
  return {
    ...common, status,
    startedAt: status === 'pending' ? null : common.startedAt,
    completedAt: ended ? isoOf(completedAt) : null,
    error: typeof job.error === 'string' ? job.error.slice(0, 4000) : null,
    jobIsStopped: status === 'timed_out',
  }
}

/** A job that the builder has never had, or has forgotten, will never be heard of. */
function unknownJob({ is_old }: Build): Change | undefined {
  if (!is_old) return undefined
  return {
    status: 'expired', error: 'The builder does not know the job.',
    startedAt: null, completedAt: null, runnerWaitSeconds: null, jobIsStopped: false,
  }
}

/** Has the builder stop the job of a build that is over. */
async function stop({ sql }: Reconciler, builder: Builder, { id, owner_org, job }: Build): Promise<'stopped'> {
  await builder.cancel(job)
  await sql`
    update public.build_requests as b
    set    job_stopped_at = clock_timestamp()
    where  b.id = ${id}
    and    b.owner_org = ${owner_org}
    and    b.job_stopped_at is null`
  return 'stopped'
}


// Jobs ----------------------------------------------------------------------------------------------

/** The states that a job does not leave. In others, such as queued or starting, a build stays as it is. */
const endings = new Set(['succeeded', 'failed', 'timed_out', 'cancelled', 'expired', 'released'])

function timeOf(value: unknown): number | undefined {
  return typeof value === 'number' && value > 0 && value < 4e12 ? value : undefined
}

function isoOf(time: number | undefined): string | null {
  return time === undefined ? null : new Date(time).toISOString()
}

function secondsOf(ms: unknown): number | null {
  return typeof ms === 'number' && ms >= 0 && ms < 2 ** 31 * 1000 ? Math.floor(ms / 1000) : null
}

import { hostname } from 'node:os'
import type { Sql } from 'postgres'
import { endWithin, readSinks, type Courier, type EnabledSink, type Ending, type Outcome } from './delivery.ts'
import { doJob, findBuilder, jobNames, type JobOutcome } from './jobs.ts'
import { isLostConnection, type Batch } from './lease.ts'
import type { Log } from './log.ts'
import { openPool } from './pool.ts'
import { Runner } from './runner.ts'
import { loadSecrets, secretsIn, type Environment } from './secrets.ts'
import type { Sink, SinkContext, SinkSettings } from './sink.ts'
import { openSink } from './sinks.ts'
import { WorkerStats } from './worker-stats.ts'

export type WorkerOptions = {
  databaseUrl: string
  /** Where secrets and BUILDER_URL are. */
  environment: Environment
  log: Log
  /** Says to end: no batch is begun any more. */
  closing: AbortSignal
  /** How long the batch that is under way may take then; default 8. */
  graceSeconds?: number
  /** Serves `/healthz` and `/metrics` on this port of 127.0.0.1; 0 takes any that is free. */
  port?: number
  /** Whether statements are prepared, default true; false for a pooler such as Supabase's on port 6543. */
  prepare?: boolean
  /** The sinks to deliver to; default all. */
  sinks?: string[]
  /** Whether to do the jobs as well; default true. */
  jobs?: boolean
  /** Batches of one sink at once, at most, where it has shards; default 4. */
  concurrency?: number
  /** Events a batch, at most; default 500. */
  batchSize?: number
  /** How long a lease lasts without a sign of life; default 30. */
  leaseSeconds?: number
  /** Milliseconds between looks at a sink that had nothing; default 200. */
  pollMs?: number
  /** Who is at work; default the host's name and the process's id. */
  name?: string
  fetch?: typeof fetch
  /** Told when it is at work, with the port that it serves on. */
  started?(port: number | undefined): void
}

/**
 * Delivers to all enabled sinks, and does the jobs that are due, until it is told to end. Any number of workers may
 * run: they share the work. A database that goes away is waited for.
 *
 * @returns when it has ended; the batch that was under way is finished, or handed on.
 * @throws {Error} where the port is taken.
 */
export async function runWorker(options: WorkerOptions): Promise<void> {
  const worker = new Worker(options)
  try {
    await worker.run()
  } finally {
    await worker.close()
  }
}

const refreshMs = 5000
const jobsMs = 5000

class Worker {
  private readonly sql: Sql
  private readonly ending: Ending
  private readonly name: string
  private readonly stats: WorkerStats
  private readonly runners = new Map<string, Runner>()
  private readonly secrets = new Map<string, { readAt: number, secret: (name: string) => string | undefined }>()
  private readonly timers = new Set<ReturnType<typeof setInterval>>()
  private readonly jobsUnderWay = new Map<string, Promise<void>>()
  private isAway = false

  constructor(private readonly options: WorkerOptions) {
    const { databaseUrl, prepare, environment, log, closing, graceSeconds = 8 } = options
    this.name = options.name ?? `${hostname()}:${process.pid}`
    log.hide(secretsIn(environment, databaseUrl))
    // Jobs may have one for minutes each; nobody's delivery is to wait in line behind them.
    this.sql = openPool(databaseUrl, { prepare, max: 12, name: 'actorscope worker' })
    this.ending = endWithin(graceSeconds, closing)
    this.stats = new WorkerStats({ sql: this.sql, worker: this.name })
  }

  async run(): Promise<void> {
    const { log, closing, jobs = true } = this.options
    if (closing.aborted) return
    const port = this.options.port === undefined ? undefined : await this.stats.serve(this.options.port)
    log('info', 'the worker begins', { worker: this.name, port })
    await this.refresh()
    this.every(refreshMs, () => this.refresh())
    this.listen()
    if (jobs) for (const job of jobNames) this.every(jobsMs, () => this.doJob(job), 'now as well')
    this.options.started?.(port)
    await aborted(closing)
    log('info', 'the worker ends', { worker: this.name })
    for (const timer of this.timers) clearInterval(timer)
    await Promise.race([
      Promise.all([...[...this.runners.values()].map((runner) => runner.idle()), ...this.jobsUnderWay.values()]),
      aborted(this.ending.leaving).then(() => sleep((this.options.graceSeconds ?? 8) * 300)),
    ])
  }

  async close(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer)
    await Promise.all([this.stats.close(), this.sql.end({ timeout: 1 })])
  }

  private every(ms: number, work: () => Promise<void>, first?: 'now as well'): void {
    this.timers.add(setInterval(() => void work(), ms))
    if (first) void work()
  }

  // Sinks that are made, changed or rewound are told of; what was not heard is seen a little later. Through a pooler
  // nothing is heard.
  private listen(): void {
    const hear = () => void this.refresh()
    this.sql.listen('tracking_sinks', hear, hear)
      .catch((error: unknown) => this.trouble(error, 'tracking_sinks cannot be listened to'))
  }

  /** Looks at which sinks there are, and has each of them worked on. */
  private async refresh(): Promise<void> {
    try {
      const sinks = await readSinks(this.sql)
      this.wellAgain()
      this.workOn(sinks.filter(({ name }) => this.options.sinks?.includes(name) ?? true))
    } catch (error) {
      this.trouble(error, 'the sinks cannot be read')
    }
  }

  private workOn(sinks: EnabledSink[]): void {
    for (const [name, runner] of this.runners) {
      if (sinks.some((sink) => sink.name === name)) continue
      runner.stop()
      this.runners.delete(name)
    }
    for (const { name, shards } of sinks) {
      const runner = this.runners.get(name) ?? this.begin(name)
      runner.lanes = Math.min(shards, this.options.concurrency ?? 4)
      runner.wake()
    }
  }

  private begin(sink: string): Runner {
    const { batchSize, leaseSeconds, pollMs = 200 } = this.options
    const open = (batch: Batch) => this.open(batch)
    const courier: Courier = { sql: this.sql, worker: this.name, batchSize, leaseSeconds, open }
    const runner = new Runner(courier, sink, this.ending, pollMs, {
      ended: (outcome) => this.report(sink, outcome),
      idle: () => this.wellAgain(),
      failed: (error) => this.trouble(error, 'a sink cannot be worked on', { sink }),
    })
    this.runners.set(sink, runner)
    this.options.log('debug', 'a sink is worked on', { sink })
    return runner
  }

  private async open(batch: Batch): Promise<Sink> {
    return openSink(batch, await this.contextOf(batch))
  }

  private async contextOf(sink: SinkSettings): Promise<SinkContext> {
    const { environment, log, fetch = globalThis.fetch } = this.options
    let known = this.secrets.get(sink.sink)
    if (!known || known.readAt < Date.now() - 60_000) {
      const load = await loadSecrets(sink, environment, this.sql)
      const secret = (name: string) => { const text = load(name); log.hide([text]); return text }
      this.secrets.set(sink.sink, known = { readAt: Date.now(), secret })
    }
    return {
      secret: known.secret, fetch, sql: this.sql,
      log: (message, fields) => log('info', message, { sink: sink.sink, ...fields }),
    }
  }

  private report(sink: string, outcome: Outcome): void {
    const { log } = this.options
    const { result, delivered, undelivered, seconds, error, retryAt } = outcome
    this.stats.ended(sink, outcome)
    const facts = { sink, delivered, undelivered, seconds: Number(seconds.toFixed(3)) }
    if (result === 'failed') log('warn', 'a batch failed', { ...facts, error, retry_at: retryAt })
    else if (result !== 'delivered') log('info', `a batch was ${result}`, facts)
    else if (undelivered > 0) log('warn', 'events were refused for good', facts)
    else log('debug', 'a batch was delivered', facts)
  }

  private async doJob(name: string): Promise<void> {
    if (this.jobsUnderWay.has(name) || this.options.closing.aborted) return
    const underWay = this.tryJob(name)
      .then((outcome) => { if (outcome) this.reportJob(outcome) })
      .catch((error: unknown) => this.trouble(error, 'a job cannot be done', { job: name }))
      .finally(() => this.jobsUnderWay.delete(name))
    this.jobsUnderWay.set(name, underWay)
    await underWay
  }

  private async tryJob(name: string): Promise<JobOutcome | undefined> {
    const { log, environment, fetch = globalThis.fetch } = this.options
    const builder = name === 'ask-builder' ? await findBuilder(environment, this.sql) : undefined
    log.hide([builder?.apiKey])
    return doJob(name, {
      sql: this.sql, worker: this.name, builder, fetch, signal: this.ending.hurrying,
      contextOf: (sink) => this.contextOf(sink),
      log: (message, fields) => log('warn', message, { job: name, ...fields }),
    })
  }

  private reportJob(outcome: JobOutcome): void {
    this.stats.did(outcome)
    const { job, result, error, seconds } = outcome
    const facts = { job, seconds: Number(seconds.toFixed(3)), ...result }
    if (error !== undefined) return this.options.log('warn', 'a job failed', { ...facts, error })
    const isNews = Object.values(result ?? {}).some((value) => value !== 0)
    this.options.log(isNews ? 'info' : 'debug', 'a job is done', facts)
  }

  /** Tells what went wrong; of a database that is away, once. */
  private trouble(error: unknown, message: string, fields: Record<string, unknown> = {}): void {
    const { code, message: said = String(error), hint } = error as { code?: string, message?: string, hint?: string }
    if (!isLostConnection(error)) return this.options.log('error', message, { ...fields, code, error: said, hint })
    if (this.isAway || this.options.closing.aborted) return
    this.isAway = true
    this.options.log('warn', 'the database is away', { code, error: said })
  }

  private wellAgain(): void {
    this.stats.wasWell()
    if (!this.isAway) return
    this.isAway = false
    this.options.log('info', 'the database is back')
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
}

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms))

import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Sql } from 'postgres'
import type { Outcome } from './delivery.ts'
import { portInUse } from './errors.ts'
import type { JobOutcome } from './jobs.ts'
import { Metrics } from './metrics.ts'

const healthySeconds = 30
const lagMs = 2000
const lagPatienceMs = 5000

/** What a worker has done, and how far its sinks are, for who watches it: `/healthz` and `/metrics`. */
export class WorkerStats {
  private readonly metrics = new Metrics()
  private readonly startedAt = Date.now()
  private wellAt = 0
  private lag: Promise<void> | undefined
  private lagReadAt = -Infinity
  private server: Server | undefined

  constructor(private readonly about: { sql: Sql, worker: string }) {
    for (const [name, kind, help] of families) this.metrics.declare(name, kind, help)
    this.metrics.set('actorscope_worker_info', { worker: about.worker }, 1)
    this.metrics.set('process_start_time_seconds', {}, this.startedAt / 1000)
  }

  /** Counts a batch. */
  ended(sink: string, { result, delivered, undelivered, seconds }: Outcome): void {
    this.metrics.add('actorscope_delivered_events_total', { sink }, delivered)
    this.metrics.add('actorscope_undelivered_events_total', { sink }, undelivered)
    this.metrics.add('actorscope_batches_total', { sink, result })
    this.metrics.observe('actorscope_batch_duration_seconds', { sink }, seconds)
  }

  /** Counts a job. */
  did({ job, error, seconds }: JobOutcome): void {
    this.metrics.add('actorscope_jobs_total', { job, result: error === undefined ? 'done' : 'failed' })
    this.metrics.add('actorscope_job_duration_seconds_total', { job }, seconds)
    if (error !== undefined) return
    this.metrics.set('actorscope_job_last_success_timestamp_seconds', { job }, Date.now() / 1000)
  }

  /** Notes that the database answered. */
  wasWell(): void {
    this.wellAt = Date.now()
  }

  /**
   * Serves `/healthz` and `/metrics` on 127.0.0.1.
   *
   * @returns the port.
   * @throws {StackError} `port_in_use`.
   */
  async serve(port: number): Promise<number> {
    const server = this.server = createServer((request, response) => {
      const [path] = (request.url ?? '').split('?')
      if (path === '/healthz') this.answerHealth(response)
      else if (path === '/metrics') void this.answerMetrics(response)
      else response.writeHead(404).end()
    })
    await new Promise<void>((done, fail) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        fail(cause.code === 'EADDRINUSE' ? portInUse(port, '--port', cause) : cause))
      server.listen(port, '127.0.0.1', done)
    })
    return (server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    if (!this.server) return
    await new Promise((done) => { this.server!.close(done); this.server!.closeAllConnections() })
  }

  private answerHealth(response: ServerResponse): void {
    const secondsAgo = this.wellAt === 0 ? null : Math.round((Date.now() - this.wellAt) / 1000)
    const isHealthy = secondsAgo !== null && secondsAgo <= healthySeconds
    const status = isHealthy ? 'ok' : 'unavailable'
    const said = { status, worker: this.about.worker, database_answered_seconds_ago: secondsAgo }
    response.writeHead(isHealthy ? 200 : 503, { 'content-type': 'application/json' }).end(`${JSON.stringify(said)}\n`)
  }

  private async answerMetrics(response: ServerResponse): Promise<void> {
    const { user, system } = process.cpuUsage()
    this.metrics.set('process_cpu_seconds_total', {}, (user + system) / 1e6)
    this.metrics.set('process_resident_memory_bytes', {}, process.memoryUsage.rss())
    await this.readLag()
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
    response.end(this.metrics.text())
  }

  // Whoever asks often gets the same answer: counting a long backlog takes a while.
  private async readLag(): Promise<void> {
    const tell = (up: number) => this.metrics.set('actorscope_database_up', {}, up)
    if (!this.lag && Date.now() - this.lagReadAt > lagMs) {
      this.lag = this.measureLag().then(() => tell(1), () => tell(0))
        .finally(() => { this.lag = undefined; this.lagReadAt = Date.now() })
    }
    if (!this.lag) return
    let timer: ReturnType<typeof setTimeout> | undefined
    const patience = new Promise<void>((done) => { timer = setTimeout(done, lagPatienceMs) }).then(() => tell(0))
    await Promise.race([this.lag, patience]).finally(() => clearTimeout(timer))
  }

  private async measureLag(): Promise<void> {
    const { sql } = this.about
    const sinks = await sql<Record<string, string | number | boolean | Date | null>[]>`select * from tracking.sink_lag`
    const [letters] = await sql<{ waiting: number }[]>`select count(*)::integer as waiting from tracking.dead_letters`
    for (const [name] of Object.values(lagGauges)) this.metrics.clear(name)
    for (const { sink, ...figures } of sinks) {
      for (const [figure, [name]] of Object.entries(lagGauges)) {
        const value = figures[figure] ?? null
        const seconds = value instanceof Date ? value.getTime() / 1000 : Number(value)
        if (value !== null || figure === 'oldest_seconds') this.metrics.set(name, { sink: String(sink) }, seconds)
      }
    }
    this.metrics.set('actorscope_lifecycle_dead_letters', {}, letters!.waiting)
  }
}

/** The columns of tracking.sink_lag. */
const lagGauges: Record<string, [name: string, help: string]> = {
  enabled: ['actorscope_sink_enabled', 'Whether the sink is delivered to.'],
  pending: ['actorscope_sink_pending_events', 'Events that wait to be delivered.'],
  oldest_seconds: [
    'actorscope_sink_oldest_pending_event_age_seconds', 'The age of the oldest of them; 0 when there is none.'],
  delivered: [
    'actorscope_sink_delivered_events', 'Events delivered since the start of the sink, or since it was rewound.'],
  filtered: ['actorscope_sink_filtered_events', 'Events since then that it does not want.'],
  undelivered: [
    'actorscope_sink_undelivered_events',
    'Events since then that it refused for good, and that wait to be retried or dropped.'],
  dropped: ['actorscope_sink_dropped_events', 'Events since then that were given up.'],
  failures: ['actorscope_sink_consecutive_failures', 'Failures in a row.'],
  retry_at: ['actorscope_sink_retry_timestamp_seconds', 'When it is tried again after a failure.'],
}

const families: [string, 'counter' | 'gauge' | 'histogram', string][] = [
  ['actorscope_worker_info', 'gauge', 'The worker.'],
  ['actorscope_database_up', 'gauge', 'Whether the database answered.'],
  ['actorscope_delivered_events_total', 'counter', 'Events that this worker delivered.'],
  ['actorscope_undelivered_events_total', 'counter', 'Events that a sink refused for good.'],
  ['actorscope_batches_total', 'counter', 'Batches by what became of them.'],
  ['actorscope_batch_duration_seconds', 'histogram', 'How long batches were under way.'],
  ...Object.values(lagGauges).map(([name, help]): [string, 'gauge', string] => [name, 'gauge', help]),
  ['actorscope_lifecycle_dead_letters', 'gauge', 'Lifecycle events of builds that could not be written yet.'],
  ['actorscope_jobs_total', 'counter', 'Jobs that this worker did.'],
  ['actorscope_job_duration_seconds_total', 'counter', 'How long they took.'],
  ['actorscope_job_last_success_timestamp_seconds', 'gauge', 'When this worker last did a job.'],
  ['process_cpu_seconds_total', 'counter', 'CPU time of this worker.'],
  ['process_resident_memory_bytes', 'gauge', 'Memory of this worker.'],
  ['process_start_time_seconds', 'gauge', 'When it began.'],
]

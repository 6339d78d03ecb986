import type { Buffer } from 'node:buffer'
import type { Sql } from 'postgres'
import { LoggedEvent, SinkError, type EventRow, type SinkSettings } from './sink.ts'

/** Who leases batches. */
export type Lessee = {
  /** The database, with the rights of the service role. */
  readonly sql: Sql
  /** Who is at work, such as `host:4711`. */
  readonly worker: string
  /** Events a batch, at most; default 500. */
  readonly batchSize?: number
  /** How long a lease lasts without a sign of life; default 30. */
  readonly leaseSeconds?: number
}

/** What `tracking.lease_batch` and `tracking.lease_ahead` answer. */
export type Batch = SinkSettings & {
  shard: number
  /** Names the batch. */
  lease: string
  /** How often it failed before, in a row. */
  failures: number
  /** Whether there may be another behind it. */
  more: boolean
  events: LoggedEvent[]
}

/** Leases the next batch of a sink; undefined where there is nothing to do. */
export async function leaseBatch(lessee: Lessee, sink: string): Promise<Batch | undefined> {
  const { sql, worker, batchSize = 500, leaseSeconds = 30 } = lessee
  const [row] = await sql`
    select * from tracking.lease_batch(${sink}, ${worker}, ${batchSize}, ${leaseSeconds})`.raw()
  return toBatch(row)
}

/** A row as bytes, a column each. */
type Columns = readonly (Buffer | null)[]

/** Reads a row of `tracking.batch`; undefined where there is none. */
function toBatch(row: Columns = []): Batch | undefined {
  const [sink, kind, settings, shard, lease, failures, more, events] = row
  if (!events) return undefined
  return {
    sink: String(sink), kind: String(kind), settings: JSON.parse(String(settings)), shard: Number(shard),
    lease: String(lease), failures: Number(failures), more: String(more) === 't', events: eventsIn(events),
  }
}

/** Cuts a list of events, `[{…}, \n {…}]`, where their lines end: no JSON of theirs has such an end in it. */
function eventsIn(list: Buffer): LoggedEvent[] {
  const events: LoggedEvent[] = []
  for (let start = 1; start < list.length - 1;) {
    const lineEnd = list.indexOf('\n', start)
    const end = lineEnd === -1 ? list.length - ']'.length : lineEnd - ', '.length
    events.push(new LoggedEvent(list.subarray(start, end)))
    start = end + ', \n '.length
  }
  return events
}

/** How far a batch has come. Events are sent in order, so what is done with is at its beginning. */
export class Progress {
  /** How many events are done with. */
  done = 0
  /** How many of them the sink took. */
  delivered = 0
  /** Those that it did not, by their place in the batch. */
  readonly undelivered: { place: number, error: string, status?: number }[] = []
  /** How many of its events are booked as done with. */
  booked = 0
  /** How many the database was last asked to book; it may have done so without the answer's having come. */
  asked = 0

  constructor(readonly batch: Batch) {}

  /** Notes that the sink took so many events, but for some. */
  took(count: number, undelivered: readonly { event: LoggedEvent, error: string }[]): void {
    for (const { event, error } of undelivered) {
      this.undelivered.push({ place: this.batch.events.indexOf(event, this.done), error })
    }
    this.done += count
    this.delivered += count - undelivered.length
  }

  /** Notes that the sink refused an event for good. */
  refused({ message, status }: SinkError): void {
    this.undelivered.push({ place: this.done, error: message, status })
    this.done++
  }

  /** How many events may be booked before all are: two of one id in one transaction go together. */
  get bookable(): number {
    const { events } = this.batch
    const isOne = (a: EventRow, b: EventRow) => a.txid === b.txid && a.event_id === b.event_id
    let count = this.done
    while (count > 0 && count < events.length && isOne(events[count - 1]!.row, events[count]!.row)) count--
    return count
  }

  /** The undelivered among the events that are not booked yet, up to a place, as the database keeps them. */
  undeliveredUpTo(place: number): string {
    const letters = this.undelivered.filter((letter) => letter.place >= this.booked && letter.place < place)
    return JSON.stringify(letters.map(({ place, error }) => {
      const { scope_id, event_id } = this.batch.events[place]!.row
      return { event: { scope_id, event_id }, error }
    }))
  }
}

const beatSeconds = 5

/**
 * A worker's hold on a shard of a sink, for a batch and those that it leases ahead, one after the other. It is kept
 * alive until it is closed. What it asks of the database, it asks in order.
 */
export class Lease {
  private readonly losing = new AbortController()
  /** Aborts when somebody else may have the batch. */
  readonly lost = this.losing.signal
  private readonly seconds: number
  private endsAt: number
  private current: Progress
  private queue: Promise<unknown> = Promise.resolve()
  private readonly heart: ReturnType<typeof setInterval>

  constructor(private readonly lessee: Lessee, batch: Batch) {
    this.current = new Progress(batch)
    this.seconds = lessee.leaseSeconds ?? 30
    this.endsAt = Date.now() + this.seconds * 1000
    // What is the batch now may be another when its turn comes, and then its lease has not begun.
    const beat = (progress: Progress) => this.inOrder(() => this.beat(progress))
    this.heart = setInterval(() => void beat(this.current), Math.min(beatSeconds, this.seconds / 3) * 1000)
  }

  /** Ends the signs of life. */
  async close(): Promise<void> {
    clearInterval(this.heart)
    await this.queue
  }

  /** Turns to a batch, when the one before it is sent. */
  begin(batch: Batch): Progress {
    return this.current = new Progress(batch)
  }

  /** Leases the batch behind another; undefined where there is none. */
  readAhead({ sink, shard, lease }: Batch): Promise<Batch | undefined> {
    return this.inOrder(async () => {
      const { sql, batchSize = 500 } = this.lessee
      const [row] = await sql`select * from tracking.lease_ahead(${sink}, ${shard}, ${lease}, ${batchSize})`.raw()
      return toBatch(row)
    })
  }

  /**
   * Books a batch as complete; the one that was leased ahead is the lease's now.
   *
   * @param next the one that was leased ahead; and whether to lease the one behind that, too.
   */
  complete(progress: Progress, next?: Batch, andAhead = false): Promise<{ isDone: boolean, ahead?: Batch }> {
    const { sql, batchSize = 500 } = this.lessee
    const { batch: { sink, shard, lease, events } } = progress
    return this.inOrder(async () => {
      await this.stubbornly(() => this.settle(progress))
      const undelivered = progress.undeliveredUpTo(events.length)
      let tries = 0
      const [done, ...ahead] = await this.stubbornly(async () => {
        tries++
        return only<Columns>(await sql`
          select c.done, a.*
          from   tracking.complete_batch(${sink}, ${shard}, ${lease}, ${undelivered}::text::jsonb) as c (done)
          left   join lateral tracking.lease_ahead(
                   ${sink}, ${shard}, case when c.done and ${andAhead} then ${next?.lease ?? null}::uuid end,
                   ${batchSize}) as a on true`.raw())
      })
      // An answer may have been lost on the way, and the batch be complete all the same.
      const isDone = String(done) === 't' || tries > 1 && next !== undefined && await this.extend(next)
      if (!isDone) this.losing.abort()
      return { isDone, ahead: toBatch(ahead) }
    })
  }

  /** Hands a batch back: what is done of it counts, and anybody may have the rest at once. */
  release(progress: Progress): Promise<{ result: 'interrupted' | 'lost' }> {
    return this.inOrder(async () => {
      await this.stubbornly(() => this.book(progress))
      const isKept = await this.stubbornly(() => this.extend(progress.batch, 0))
      return { result: isKept ? 'interrupted' : 'lost' }
    })
  }

  /** Says that a batch failed: what is done of it counts, and the rest is tried again. */
  fail(progress: Progress, error: unknown): Promise<{ result: 'failed' | 'lost', error: string, retryAt?: Date }> {
    const { sql } = this.lessee
    const { sink, shard, lease } = progress.batch
    const message = error instanceof Error ? error.message : String(error)
    const pause = `${error instanceof SinkError ? error.retryAfterMs ?? 0 : 0} milliseconds`
    return this.inOrder(async () => {
      await this.stubbornly(() => this.book(progress))
      const { retry_at } = await this.stubbornly(async () => only(await sql<{ retry_at: Date | null }[]>`
        select tracking.fail_batch(${sink}, ${shard}, ${lease}, ${message}, ${pause}::text::interval) as retry_at`))
      return { result: retry_at ? 'failed' : 'lost', error: message, retryAt: retry_at ?? undefined }
    })
  }

  // What was sent is booked while the rest is under way, so that little of it is sent twice should this process die.
  private async beat(progress: Progress): Promise<void> {
    try {
      await this.book(progress)
      const isYoung = this.endsAt - Date.now() >= this.seconds * 1000 * 2 / 3
      if (!isYoung && !await this.extend(progress.batch)) this.losing.abort()
    } catch {
      // The database may be back before the lease ends.
      if (Date.now() > this.endsAt) this.losing.abort()
    }
  }

  private async extend({ sink, shard, lease }: Batch, seconds = this.seconds): Promise<boolean> {
    const asked = Date.now()
    const { kept } = only(await this.lessee.sql<{ kept: boolean }[]>`
      select tracking.extend_lease(${sink}, ${shard}, ${lease}, ${seconds}) as kept`)
    if (kept) this.endsAt = asked + seconds * 1000
    return kept
  }

  /** Moves the cursor past what is done of the batch; but as long as nothing was taken, nothing is certain. */
  private async book(progress: Progress): Promise<void> {
    await this.settle(progress)
    const { batch: { events }, booked, bookable, delivered } = progress
    if (bookable > booked && bookable < events.length && delivered > 0) await this.advance(progress, bookable)
  }

  /** Asks again for what was asked without an answer. */
  private async settle(progress: Progress): Promise<void> {
    if (progress.asked > progress.booked) await this.advance(progress, progress.asked)
  }

  private async advance(progress: Progress, count: number): Promise<void> {
    const { batch: { sink, shard, lease, events }, booked } = progress
    const last = events[count - 1]!.row
    progress.asked = count
    const { kept } = only(await this.lessee.sql<{ kept: boolean }[]>`
      select tracking.advance_batch(
               ${sink}, ${shard}, ${lease}, ${count - booked}, ${last.txid}::text::xid8, ${last.event_id},
               ${progress.undeliveredUpTo(count)}::text::jsonb) as kept`)
    progress.booked = count
    if (!kept) this.losing.abort()
  }

  private inOrder<T>(ask: () => Promise<T>): Promise<T> {
    const asked = this.queue.then(ask)
    this.queue = asked.catch(() => {})
    return asked
  }

  // The database may go away for a moment, with or without having heard.
  private async stubbornly<T>(ask: () => PromiseLike<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await ask()
      } catch (error) {
        if (!isLostConnection(error) || Date.now() > this.endsAt) throw error
        await new Promise((done) => setTimeout(done, Math.min(1000, 50 * 2 ** attempt)))
      }
    }
  }
}

const lost = new RegExp(`^(${[
  'CONNECTION_(CLOSED|ENDED|DESTROYED)', 'CONNECT_TIMEOUT', // the client's own
  'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', // the system's
  '57P0[1-5]', '08\\d{3}', '53300', // Postgres's: it shuts down, is starting, has too many connections
].join('|')})$`)

/** The row of an answer that has one. A server that dies amid its answer may leave none, and no error either. */
function only<Row>([row]: readonly Row[]): Row {
  if (row === undefined) throw Object.assign(new Error('The answer was lost.'), { code: 'CONNECTION_CLOSED' })
  return row
}

/** Says whether the database was not there, or went away: asking again may help. */
export function isLostConnection(error: unknown): boolean {
  return lost.test(String((error as { code?: unknown } | null)?.code))
}

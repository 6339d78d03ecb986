import { createHash } from 'node:crypto'
import type { Reject } from './bulk.ts'
import type { Content, Row } from './history-rows.ts'
import type { ImportState } from './import-state.ts'
import { objectOf, type Members } from './json.ts'
import { Repeats } from './repeats.ts'
import { TrackingError } from './tracking-error.ts'

// A batch is a transaction: it takes at most so many events and, but for the last of them, so many characters.
const MAX_EVENTS = 4000
const MAX_CHARACTERS = 20_000_000
/** So many batches are under way at once, at most. */
const AT_ONCE = 2
/** Of so many kinds of warnings the first of each is told. */
const MAX_WARNINGS = 20

/** How far an import of old data has come. */
export type HistoryState = ImportState & {
  /** Rows of which the database could not tell who or what they are by, by reason. They count as dropped. */
  undecided: Counts
  /** Rows that were dropped for another reason, by error. */
  refused: Counts
  /** Events that were passed over, by name. */
  passedOver: Counts
}

export type Counts = Record<string, number>

/** What became of an event. A drop whose error has no code could not be decided. */
export type Outcome = {
  result: 'ok' | 'duplicate' | 'drop'
  warnings?: string[]
  error?: { code?: string, message: string, details?: string, hint?: string }
}

export type History = {
  rows: AsyncIterable<Row>
  /** Where to begin. It is changed as the import goes on. */
  state: HistoryState
  /** Records events, each as JSON: all of them or none. Answers for each, in order. May be called before it has answered. */
  record(payloads: string[]): Promise<Outcome[]>
  /** Has the log ready for months, each given as its first day. */
  makeMonths(days: string[]): Promise<void>
  /** Told what was not recorded, before it counts as done. */
  reject(rejects: Reject[]): Promise<void>
  /** Told of a warning the first time it occurs. */
  warn(line: number, warning: string): void
  /** Keeps the state; nothing is recorded before the first call has resolved. */
  save(state: HistoryState): Promise<void>
  /** Told after every batch. */
  progress?(): void
  interrupted: AbortSignal
}

/**
 * Records the events of old data, each row once however often it is called: a row without an id gets one that is made
 * of what is in it, and of its place among equal rows. Memory does not grow with the input.
 *
 * @throws {TrackingError} `resume_mismatch`, where the input does not begin with the rows that the state is about; and
 *   whatever `record` throws, but for faults of single events; and `file_unreadable`, once all before that is recorded.
 */
export async function importHistory(history: History): Promise<void> {
  const { state, rows, interrupted } = history
  const done = state.lines
  const reader = new Reader()
  const writer = new Writer(history)
  await history.save(state)
  let batch = new Batch()
  let isNew = done === 0
  const takeAll = async () => {
    for await (const row of rows) {
      interrupted.throwIfAborted()
      if (!isNew && row.line > done) {
        reader.refuseOther(state)
        isNew = true
      }
      const content = reader.take(row)
      if (!isNew) continue
      batch.add(row, content)
      if (!batch.isFull) continue
      await writer.write(batch, reader)
      batch = new Batch()
    }
    if (!isNew) reader.refuseOther(state)
  }
  let broken: TrackingError | undefined
  await takeAll().catch((error: unknown) => {
    if (!(error instanceof TrackingError) || error.code !== 'file_unreadable') throw error
    broken = error // what came before is recorded all the same
  })
  if (!batch.isEmpty) await writer.write(batch, reader)
  await writer.finish()
  if (broken) throw broken
  state.finished = true
  await history.save(state)
}

/** Reads rows, knows which ones, and sees to it that each has an id. */
class Reader {
  /** The line of the last row. */
  line = 0
  private readonly repeats = new Repeats()
  private readonly hash = createHash('sha256')

  take(row: Row): Content {
    this.line = row.line
    this.hash.update(row.content)
    const content = row.read()
    if ('payload' in content && !hasId(content.payload)) content.payload.set('event_id', this.idOf(row))
    return content
  }

  /** Over the rows that were read. */
  digest(): string {
    return this.hash.copy().digest('hex')
  }

  // The same as actorscope track gives a line.
  private idOf({ content }: Row): string {
    const hash = createHash('sha256').update(content).digest()
    return `"${hash.toString('hex')}:${this.repeats.placeOf(hash)}"`
  }

  /** @throws {TrackingError} where the rows so far are not those that the state is about */
  refuseOther({ lines, digest }: HistoryState): void {
    if (this.line === lines && this.digest() === digest) return
    throw new TrackingError('resume_mismatch', {
      details: `The input does not begin with the ${lines} lines that were done before.`,
      hint: 'Name a file of its own for this input with --resume, or give the input that was begun with.',
    })
  }
}

const hasId = (payload: Members): boolean => ![undefined, 'null', '""'].includes(payload.get('event_id'))

/** An event that is to be recorded. */
type Item = { row: Row, payload: string }

/** Rows that are recorded together, or of which it is known already that they are not. */
class Batch {
  readonly items: Item[] = []
  readonly rejects: Reject[] = []
  readonly passedOver: Counts = {}
  /** The months that its events happened in: 2026-11. */
  readonly months = new Set<string>()
  private rows = 0
  private characters = 0

  get isFull(): boolean {
    return this.rows >= MAX_EVENTS || this.characters >= MAX_CHARACTERS
  }

  get isEmpty(): boolean {
    return this.rows === 0
  }

  add(row: Row, content: Content): void {
    this.rows++
    if ('passedOver' in content) return count(this.passedOver, content.passedOver)
    if ('fault' in content) return void this.rejects.push(toReject(row, content.fault))
    const payload = prepare(content.payload)
    const month = monthOf(content.payload)
    if (month) this.months.add(month)
    this.items.push({ row, payload })
    this.characters += payload.length
  }
}

// What happened long ago is no news: nobody is notified of it, and no console shows it.
function prepare(payload: Members): string {
  payload.delete('notify')
  payload.delete('notifyConsole')
  return objectOf(payload)
}

const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 7)

/** The month of an event in UTC, give or take a time zone: 2026-11. */
function monthOf(payload: Members): string | undefined {
  const month = payload.get('timestamp')?.slice(1, 8) ?? monthIn(payload.get('event_id'))
  return month && month >= '1970-01' && month <= tomorrow && /^\d{4}-(0[1-9]|1[0-2])$/.test(month) ? month : undefined
}

/** The month of the time that a UUIDv7 carries. */
function monthIn(id = ''): string | undefined {
  const [, high, low] = /^"([0-9a-f]{8})-([0-9a-f]{4})-7/i.exec(id) ?? []
  return high && low && new Date(parseInt(high + low, 16)).toISOString().slice(0, 7)
}

/** Hands batches to the database, one while another is still under way, and keeps account in their order. */
class Writer {
  private readonly underWay: { batch: Batch, lines: number, digest: string, outcomes: Promise<Outcome[]> }[] = []
  private readonly months = new Set<string>()
  private readonly warned = new Set<string>()

  constructor(private readonly history: History) {}

  /** Begins with a batch, which ends with the last row that was read. */
  async write(batch: Batch, reader: Reader): Promise<void> {
    const [lines, digest] = [reader.line, reader.digest()]
    await this.makeMonths(batch)
    const outcomes = this.record(batch.items)
    outcomes.catch(() => {}) // it is waited for later
    this.underWay.push({ batch, lines, digest, outcomes })
    while (this.underWay.length > AT_ONCE) await this.settle()
  }

  /** Waits until all is recorded. */
  async finish(): Promise<void> {
    while (this.underWay.length > 0) await this.settle()
  }

  // A partition is made when nobody writes.
  private async makeMonths({ months }: Batch): Promise<void> {
    const missing = [...months].filter((month) => !this.months.has(month))
    if (missing.length === 0) return
    await this.finish()
    await this.history.makeMonths(missing.sort().map((month) => `${month}-01`))
    for (const month of missing) this.months.add(month)
  }

  /** Records events, apart where one of them keeps the others from being recorded. */
  private async record(items: Item[]): Promise<Outcome[]> {
    if (items.length === 0) return []
    try {
      return await this.history.record(items.map(({ payload }) => payload))
    } catch (error) {
      const { code = '', message, detail } = error as DatabaseError
      if (code === DEADLOCK) return this.record(items) // two batches with the same events: the other one is through
      if (!isOfThePayload(code)) throw error
      if (items.length === 1) return [dropped(code, message, detail)]
      const half = Math.ceil(items.length / 2)
      return [...await this.record(items.slice(0, half)), ...await this.record(items.slice(half))]
    }
  }

  private async settle(): Promise<void> {
    const { batch, lines, digest, outcomes } = this.underWay[0]!
    const rejects = [...batch.rejects]
    const { state } = this.history
    for (const [index, outcome] of (await outcomes).entries()) {
      const reject = this.take(batch.items[index]!.row, outcome)
      if (reject) rejects.push(reject)
    }
    this.underWay.shift()
    for (const { code } of batch.rejects) count(state.refused, code)
    for (const [event, events] of Object.entries(batch.passedOver)) count(state.passedOver, event, events)
    if (rejects.length > 0) await this.history.reject(rejects.sort((a, b) => a.line - b.line))
    Object.assign(state, { lines, digest, dropped: state.dropped + rejects.length })
    await this.history.save(state)
    this.history.progress?.()
  }

  private take(row: Row, { result, warnings = [], error }: Outcome): Reject | undefined {
    const { state, warn } = this.history
    for (const warning of warnings) {
      if (this.warned.size === MAX_WARNINGS || this.warned.has(warning)) continue
      this.warned.add(warning)
      warn(row.line, warning)
    }
    if (result === 'ok') state.recorded++
    else if (result === 'duplicate') state.duplicates++
    else {
      const { code, message, details, hint } = error!
      count(code === undefined ? state.undecided : state.refused, message)
      return toReject(row, { code: message, details, hint })
    }
    return undefined
  }
}

type DatabaseError = Error & { code?: string, detail?: string }

const DEADLOCK = '40P01'

/** Says whether a single event may be to blame: Postgres could not read it, or the log would not have it. */
const isOfThePayload = (code: string): boolean => /^(22|23|54)/.test(code)

function dropped(code: string, message: string, detail: string | undefined): Outcome {
  return { result: 'drop', error: { code, message: code, details: [message, detail].filter(Boolean).join('. ') } }
}

function toReject({ line, text }: Row, { code, details, hint }: Pick<TrackingError, 'code' | 'details' | 'hint'>): Reject {
  return { line, code, details, hint, text: text() }
}

function count(counts: Counts, name: string, by = 1): void {
  counts[name] = (counts[name] ?? 0) + by
}

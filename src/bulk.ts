import { isUtf8 } from 'node:buffer'
import { createHash, type Hash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { isRefusal, type Answer } from './answer.ts'
import type { ImportState } from './import-state.ts'
import { linesOf, type Line } from './json-lines.ts'
import { Repeats } from './repeats.ts'
import { TrackingError } from './tracking-error.ts'

// A batch takes at most so many events and, but for the last of them, so many characters.
const MAX_EVENTS = 500
const MAX_CHARACTERS = 1_000_000
/** An event is far smaller: 32 KB of tags, and texts of a few thousand characters. */
const MAX_LINE_BYTES = 1_000_000
/** Of so many kinds of warnings the first of each is told. */
const MAX_WARNINGS = 20
// The waits between tries are random, up to a bound that doubles from the first to the last; in milliseconds.
const FIRST_WAIT = 500
const LAST_WAIT = 30_000

/** A line that was not recorded, and why. */
export type Reject = {
  readonly line: number
  readonly code: string
  readonly details?: string
  readonly hint?: string
  /** The line as it was read. */
  readonly text: string
}

export type Import = {
  /** JSON lines, each a payload of track_event. */
  input: AsyncIterable<Buffer>
  /** Where to begin. It is changed as the import goes on. */
  state: ImportState
  /** Sends the arguments of track_events. */
  send(json: string): Promise<Answer>
  /** An answer that is no success, as an error. */
  toError(answer: Answer): TrackingError
  /** Told what was dropped, before it counts as done. */
  reject(rejects: Reject[]): Promise<void>
  /** Told of a warning the first time it occurs. */
  warn(line: number, warning: string): void
  /** Told that nothing can be sent, why, and for how long it waits, in milliseconds. */
  waits(error: TrackingError, wait: number): void
  /** Keeps the state; nothing is sent before the first call has resolved. */
  save(state: ImportState): Promise<void>
  /** Told how many bytes of the input are done with, after every batch. */
  progress?(bytes: number): void
  /** For how long to try again what fails for reasons that may pass, in milliseconds. */
  retryFor: number
  interrupted: AbortSignal
}

/**
 * Records the events of an input, each line once however often it is called with the same input and the same
 * state: a line without an event_id gets one that is made of its text, its place among equal lines, and its time
 * or the state's. Memory does not grow with the input.
 *
 * @throws {TrackingError} `resume_mismatch`, where the input does not begin with the lines that the state is about;
 *   the API's codes for what concerns all events; `unexpected_answer`.
 */
export async function importEvents(options: Import): Promise<void> {
  const { state } = options
  const sender = new Sender(options)
  const reader = new Reader(state.startedAt)
  await options.save(state)
  let batch: Item[] = []
  let characters = 0
  const flush = async (end: number) => {
    await sender.deliver(batch)
    batch = []
    characters = 0
    state.lines = reader.lines
    state.digest = reader.digest()
    await options.save(state)
    options.progress?.(end)
  }
  let end = 0
  for await (const line of linesOf(options.input, MAX_LINE_BYTES)) {
    options.interrupted.throwIfAborted()
    const item = reader.read(line, state.lines < line.number)
    end = line.end
    if (line.number === state.lines && reader.digest() !== state.digest) throw otherInput(state)
    if (!item) continue
    batch.push(item)
    characters += item.text.length
    if (batch.length >= MAX_EVENTS || characters >= MAX_CHARACTERS) await flush(end)
  }
  if (reader.lines < state.lines) throw otherInput(state)
  state.finished = true
  await flush(end)
}

function otherInput({ lines }: ImportState): TrackingError {
  return new TrackingError('resume_mismatch', {
    details: `The input does not begin with the ${lines} lines that were done before.`,
    hint: 'Name a file of its own for this input with --resume, or give the input that was begun with.',
  })
}

/** A line to send, or one with a fault that can be seen before. */
type Item = { line: number, text: string, payload?: string, fault?: TrackingError }

/** Makes payloads of lines, and ids for those that have none. */
class Reader {
  /** How many lines were read. */
  lines = 0
  private readonly repeats = new Repeats()
  private readonly hash: Hash = createHash('sha256')

  constructor(private readonly startedAt: string) {}

  /** Over the lines that were read. */
  digest(): string {
    return this.hash.copy().digest('hex')
  }

  /** Takes a line into account; answers what to do with it, where it is new and not blank. */
  read(line: Line, isNew: boolean): Item | undefined {
    this.lines = line.number
    const lineHash = createHash('sha256').update(line.bytes).digest()
    this.hash.update(lineHash)
    if (line.bytes.length === 0) return undefined
    const place = this.repeats.placeOf(lineHash)
    return isNew ? this.toItem(line, `${lineHash.toString('hex')}:${place}`) : undefined
  }

  private toItem(line: Line, id: string): Item {
    const text = line.bytes.toString()
    const item = { line: line.number, text }
    if (line.isCut) return { ...item, text: `${text.slice(0, 1000)}…`, fault: tooLong }
    if (!isUtf8(line.bytes)) return { ...item, fault: unreadable('UTF-8') }
    try {
      return { ...item, payload: withId(text, JSON.parse(text), id, this.startedAt) }
    } catch (error) {
      return { ...item, fault: unreadable(`JSON: ${(error as Error).message}`) }
    }
  }
}

const tooLong = new TrackingError('payload_too_large', {
  details: 'The line is longer than 1 MB.', hint: 'An event has up to 32 KB of tags and nonPersonTags.' })

function unreadable(reason: string): TrackingError {
  return new TrackingError('invalid_payload', {
    details: `The line is not ${reason}.`, hint: 'Every line is one event, a JSON object, in UTF-8.' })
}

// The text goes on as it was written, since JavaScript would lose digits of numbers. Of members with the same
// name the last one counts.
function withId(text: string, payload: unknown, id: string, startedAt: string): string {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) return text
  const { event_id, timestamp } = payload as { event_id?: unknown, timestamp?: unknown }
  if (event_id !== undefined && event_id !== null) return text
  const more = { event_id: id, ...((timestamp === undefined || timestamp === null) && { timestamp: startedAt }) }
  const comma = Object.keys(payload).length > 0 ? ',' : ''
  return `${text.slice(0, -1)}${comma}${JSON.stringify(more).slice(1)}`
}

/** What track_events answers. */
type Results = { results: Result[] }
type Result = { result: string, warnings?: string[], error?: { message: string, details?: string, hint?: string } }

/** Delivers batches, in pieces as large as the API takes them. */
class Sender {
  private size = MAX_EVENTS
  private largest = MAX_EVENTS
  private failures = 0
  private firstFailure = 0
  private readonly warned = new Set<string>()

  constructor(private readonly options: Import) {}

  /** Sends what can be sent, and rejects the rest. */
  async deliver(batch: Item[]): Promise<void> {
    const rejects = batch.flatMap((item) => (item.fault ? [toReject(item, item.fault)] : []))
    let rest = batch.filter((item) => !item.fault)
    while (rest.length > 0) {
      const piece = rest.slice(0, this.size)
      const rejected = await this.send(piece)
      if (!rejected) continue
      rejects.push(...rejected)
      rest = rest.slice(piece.length)
    }
    if (rejects.length === 0) return
    await this.options.reject(rejects.sort((a, b) => a.line - b.line))
    this.options.state.dropped += rejects.length
  }

  /** @returns what was dropped; or nothing, where it is to be tried again, in smaller pieces. */
  private async send(piece: Item[]): Promise<Reject[] | undefined> {
    const answer = await this.options.send(`{"v2":[${piece.map((item) => item.payload).join(',')}]}`)
    if (answer.status >= 200 && answer.status < 300) return this.accept(piece, answer)
    const error = this.options.toError(answer)
    if (isOfThePayload(error)) return this.isolate(piece, error)
    if (isRefusal(answer)) throw error
    await this.wait(piece, error, answer.retryAfter)
    return undefined
  }

  private isolate(piece: Item[], error: TrackingError): Reject[] | undefined {
    const [first] = piece
    if (first && piece.length === 1) {
      this.largest = MAX_EVENTS // it was this one that was too large
      return [toReject(first, error)]
    }
    this.size = half(piece)
    if (error.status === 413) this.largest = this.size
    return undefined
  }

  // A smaller piece may pass where a larger one did not: it takes less of a limit, and less time.
  private async wait(piece: Item[], error: TrackingError, retryAfter: number | undefined): Promise<void> {
    if (this.failures++ === 0) this.firstFailure = Date.now()
    this.size = half(piece)
    const bound = Math.min(LAST_WAIT, FIRST_WAIT * 2 ** (this.failures - 1))
    const wait = retryAfter || Math.random() * bound
    if (Date.now() + wait > this.firstFailure + this.options.retryFor) throw error
    this.options.waits(error, wait)
    await sleep(wait, undefined, { signal: this.options.interrupted })
  }

  private accept(piece: Item[], answer: Answer): Reject[] {
    const { results } = (answer.body ?? {}) as Partial<Results>
    if (results?.length !== piece.length) throw new TrackingError('unexpected_answer', {
      status: answer.status,
      details: 'The API did not answer for every event.',
      hint: 'Is it an Actorscope installation? See actorscope doctor.',
    })
    this.failures = 0
    this.size = Math.min(this.largest, this.size * 2)
    return piece.flatMap((item, index) => this.take(item, results[index] ?? { result: 'drop' }))
  }

  private take(item: Item, { result, warnings = [], error }: Result): Reject[] {
    const { state, warn } = this.options
    for (const warning of warnings) {
      if (this.warned.size === MAX_WARNINGS || this.warned.has(warning)) continue
      this.warned.add(warning)
      warn(item.line, warning)
    }
    if (result === 'drop') return [toReject(item, new TrackingError(error?.message ?? 'unexpected_answer', error))]
    if (result === 'duplicate') state.duplicates++
    else state.recorded++
    return []
  }
}

const half = (piece: Item[]): number => Math.ceil(piece.length / 2)

/** Says whether a single event is why a whole batch was refused: Postgres could not read it, or it is too much. */
function isOfThePayload({ status, code }: TrackingError): boolean {
  return status === 413 || (status === 400 && /^(22|23|54|PGRST102)/.test(code))
}

function toReject({ line, text }: Item, { code, details, hint }: TrackingError): Reject {
  return { line, code, details, hint, text }
}

import { isUtf8 } from 'node:buffer'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { CsvError, parse as parseCsv } from 'csv-parse'
import { fromPostHog } from './history-posthog.ts'
import { linesOf } from './json-lines.ts'
import { membersOf, objectOf, setMember, type Members } from './json.ts'
import { TrackingError } from './tracking-error.ts'

/** An event is far smaller: 32 KB of tags, texts of a few thousand characters, and what PostHog adds. */
const MAX_ROW = 1_000_000

/** A row of old data. */
export type Row = {
  /** The line that it begins in, from 1. */
  readonly line: number
  /** All that is in it: equal rows have the same. */
  readonly content: Buffer | string
  /** As it was read. */
  text(): string
  /** What is to become of it. */
  read(): Content
}

/** A payload of track_event, which may have an actor_id besides; an event that is passed over; or a row that is none. */
export type Content = { payload: Members } | { passedOver: string } | { fault: TrackingError }

export type RowOptions = {
  /** Default: as the content looks. */
  format?: 'jsonl' | 'csv'
  /** Whose export it is; default: PostHog's where a row has a distinct_id. */
  from?: 'v1' | 'posthog'
  /** The type of PostHog's groups that stands for organizations. */
  groupType: string
}

/**
 * Reads the rows of an export: JSON lines or CSV, compressed by gzip or not.
 *
 * @throws {TrackingError} `file_unreadable`, where it is broken beyond the next row.
 */
export async function* rowsOf(input: AsyncIterable<Buffer>, options: RowOptions): AsyncGenerator<Row> {
  const [first, chunks] = await peek(await unzip(input), (head) => /[^\s\ufeff]/.test(head.toString()))
  const format = options.format ?? (/^\ufeff?\s*[{[]/.test(first.toString()) ? 'jsonl' : 'csv')
  try {
    yield* format === 'jsonl' ? jsonRows(chunks, options) : csvRows(chunks, options)
  } catch (error) {
    throw isOfTheFile(error) ? unreadable(error) : error
  }
}

/** Reads a row, whoever's export it is in. What it is not by its form alone, is for the database to say. */
function contentOf(read: () => Members, { from, groupType }: RowOptions): Content {
  try {
    const members = read()
    const isPostHogs = from ? from === 'posthog' : members.has('distinct_id')
    return isPostHogs ? fromPostHog(members, groupType) : { payload: fromV1(members) }
  } catch (error) {
    if (error instanceof SyntaxError) return { fault: noEvent(`No JSON object: ${error.message}.`) }
    throw error
  }
}

// An org may be named among the tags alone; the database takes it from org_id.
function fromV1(payload: Members): Members {
  const tags = payload.get('tags')
  if (!payload.has('org_id') && tags?.startsWith('{')) setMember(payload, 'org_id', membersOf(tags).get('org_id'))
  return payload
}


// JSON lines ----------------------------------------------------------------------------------------

async function* jsonRows(chunks: AsyncIterable<Buffer>, options: RowOptions): AsyncGenerator<Row> {
  for await (const { number, bytes, isCut } of linesOf(chunks, MAX_ROW)) {
    if (bytes.length === 0) continue
    const text = () => (isCut ? `${bytes.toString('utf8', 0, 1000)}…` : bytes.toString())
    yield {
      line: number, content: bytes, text,
      read() {
        if (isCut) return { fault: tooLong() }
        if (!isUtf8(bytes)) return { fault: noEvent('The line is not UTF-8.') }
        return contentOf(() => membersOf(text()), options)
      },
    }
  }
}


// CSV -----------------------------------------------------------------------------------------------

async function* csvRows(chunks: AsyncIterable<Buffer>, options: RowOptions): AsyncGenerator<Row> {
  const encoding = new Utf8Check()
  let names: string[] | undefined
  let twice = 0 // the lines that the parser counted twice
  for await (const { cells, end } of csvRecords(encoding.watch(chunks))) {
    const content = cells.join('\u001f')
    twice += content.split('\r\n').length - 1
    if (!names) refuseHeading(names = cells.map((name) => name.trim().replace(/^\*\./, '')))
    else yield csvRow(end - twice - (content.split(/\r\n|\r|\n/).length - 1), content, names, cells, encoding, options)
  }
}

type CsvRecord = {
  cells: string[]
  /** The line that it ends in, where each of CR and LF amid a cell ends one. */
  end: number
}

// Not piped: what was read well would be lost where the next record is not.
async function* csvRecords(chunks: AsyncIterable<Buffer>): AsyncGenerator<CsvRecord> {
  const records: CsvRecord[] = []
  const parser = parseCsv({
    bom: true, relax_column_count: true, skip_empty_lines: true, max_record_size: MAX_ROW,
    record_delimiter: ['\r\n', '\n', '\r'], // a file may have them all: a heading that was put before an export
    on_record: (cells: string[], { lines }) => void records.push({ cells, end: lines }),
  })
  parser.on('error', () => {}).resume()
  type Fault = Error | null | undefined
  for await (const chunk of chunks) {
    const fault = await new Promise<Fault>((done) => parser.write(chunk, done))
    yield* records.splice(0)
    if (fault) throw fault
  }
  const fault = await new Promise<Fault>((done) => parser.end(done))
  yield* records
  if (fault) throw fault
}

/** Knows whether what went by is UTF-8. What is not, the parser reads as U+FFFD. */
class Utf8Check {
  private isUtf8 = true

  async* watch(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const decoder = new TextDecoder('utf-8', { fatal: true })
    for await (const chunk of chunks) {
      try {
        if (this.isUtf8) decoder.decode(chunk, { stream: true })
      } catch {
        this.isUtf8 = false
      }
      yield chunk
    }
  }

  /** Whether text that was read is not what was written. */
  hasLost(text: string): boolean {
    return !this.isUtf8 && text.includes('\ufffd')
  }
}

function csvRow(line: number, content: string, names: string[], cells: string[], encoding: Utf8Check, options: RowOptions): Row {
  return {
    line,
    content,
    text: () => cells.map((cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(','),
    read() {
      if (encoding.hasLost(content)) return { fault: noEvent('The line is not UTF-8.') }
      if (cells.length !== names.length) {
        return { fault: noEvent(`The row has ${cells.length} cells, and the heading ${names.length}.`) }
      }
      return contentOf(() => membersIn(names, cells), options)
    },
  }
}

function refuseHeading(names: string[]): void {
  if (names.includes('event')) return
  throw new TrackingError('file_unreadable', {
    details: 'The first line is neither a JSON object nor a heading with a column "event".',
    hint: 'Give a CSV with a heading, or JSON lines; --format says which it is.',
  })
}

/** Columns that hold JSON; those whose names begin so, with a dot and a name, hold one member each, as text. */
const jsonColumns = ['properties', 'tags', 'nonPersonTags']

// An empty cell is an absent field: CSV knows no other.
function membersIn(names: string[], cells: string[]): Members {
  const members: Members = new Map()
  const apart = new Map<string, Members>()
  for (const [index, name] of names.entries()) {
    const cell = cells[index]!
    if (cell === '') continue
    const column = jsonColumns.find((one) => name.startsWith(one) && name[one.length] === '.')
    if (column) apart.set(column, (apart.get(column) ?? new Map()).set(name.slice(column.length + 1), JSON.stringify(cell)))
    else members.set(name, jsonColumns.includes(name) ? objectIn(cell, name) : JSON.stringify(cell))
  }
  for (const [column, of] of apart) if (!members.has(column)) members.set(column, objectOf(of))
  return members
}

/** @throws {SyntaxError} where the text is not one object */
function objectIn(text: string, column: string): string {
  try {
    membersOf(text)
    return text
  } catch (error) {
    throw new SyntaxError(`${column}: ${(error as Error).message}`)
  }
}


// The file ------------------------------------------------------------------------------------------

async function unzip(input: AsyncIterable<Buffer>): Promise<AsyncIterable<Buffer>> {
  const [first, chunks] = await peek(input, (head) => head.length > 1)
  if (first[0] !== 0x1f || first[1] !== 0x8b) return chunks
  const source = Readable.from(chunks)
  const gunzip = createGunzip()
  source.on('error', (error) => gunzip.destroy(error))
  return source.pipe(gunzip)
}

/** So much of the beginning as is enough, if there is so much; and all. */
async function peek(input: AsyncIterable<Buffer>, isEnough: (head: Buffer) => boolean): Promise<[Buffer, AsyncIterable<Buffer>]> {
  const chunks = input[Symbol.asyncIterator]()
  let head = Buffer.alloc(0)
  let next = await chunks.next()
  for (; !next.done; next = await chunks.next()) {
    head = Buffer.concat([head, next.value])
    if (isEnough(head)) break
  }
  const all = async function* () {
    try {
      if (head.length > 0) yield head
      if (next.done) return
      for (next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value
    } finally {
      await chunks.return?.()
    }
  }
  return [head, all()]
}

const isOfTheFile = (error: unknown): error is Error =>
  error instanceof CsvError || /^(Z_|E[A-Z]+$)/.test(String((error as { code?: unknown }).code))

function unreadable(cause: Error): TrackingError {
  return new TrackingError('file_unreadable', {
    details: `The file cannot be read on: ${cause.message}.`,
    hint: 'Mend the file, and run the command again: nothing is recorded twice.',
    cause,
  })
}

function noEvent(details: string): TrackingError {
  return new TrackingError('invalid_payload', { details, hint: 'Every row is one event, in UTF-8: a JSON object, or a line of CSV.' })
}

function tooLong(): TrackingError {
  return new TrackingError('payload_too_large', {
    details: 'The line is longer than 1 MB.', hint: 'An event has up to 32 KB of tags and nonPersonTags.' })
}

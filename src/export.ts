import { createReadStream } from 'node:fs'
import { access, open, rename, rm, type FileHandle } from 'node:fs/promises'
import type { Sql, TransactionSql } from 'postgres'
import { countParquet, ParquetFile, type Column, type Row } from './parquet.ts'
import { TrackingError } from './tracking-error.ts'

// What is in the database, as files. A file has its name when it is whole, counted and on the disk, and not before.

/** How an export is made. */
export type Export = {
  sql: Sql
  /** Where to: a name that ends in `.parquet` (months alone) or `.ndjson`. */
  file: string
  /** Told how many rows are written, of how many, where that is known. */
  progress(done: number, total?: number): void
  interrupted: AbortSignal
}

/**
 * Writes the events of a month to a file, as the log has them at one moment, and notes that for
 * `tracking.apply_retention`. Parquet has a column for each of the log's, NDJSON a line for each row.
 *
 * @param month such as `2025-10`
 * @returns how many events they are.
 * @throws {TrackingError} `file_exists`, `file_unwritable`, `file_incomplete`.
 */
export async function exportMonth(month: string, { sql, file, progress, interrupted }: Export): Promise<number> {
  const first = `${month}-01`
  const { events, seen } = await inOneMoment(sql, interrupted, async (tx, ended) => {
    const ofMonth = tx`
      public.events as e
      where e.occurred_at >= ${first}::text::timestamp at time zone 'UTC'
      and   e.occurred_at < (${first}::text::timestamp + interval '1 month') at time zone 'UTC'`
    const [{ events, seen, isThere } = nothing] = await tx<(typeof nothing)[]>`
      select count(*)::float8 as events, tracking.current_snapshot()::text as seen,
             to_regclass(${`tracking.events_${month.replace('-', '_')}`}) is not null as "isThere"
      from   ${ofMonth}`
    if (!isThere) throw noMonth(month, events)
    const columns = file.endsWith('.parquet') ? await readColumns(tx) : undefined
    await writeWhole(file, ended, async (part) => {
      const output = columns ? new ParquetFile(part, columns) : await LineFile.create(part)
      const rows = columns ? tx<Row[]>`select ${tx.unsafe(columns.map(selected).join(', '))} from ${ofMonth}`
        : tx<Row[]>`select row_to_json(e)::text as line from ${ofMonth}`
      await pour(rows, output, (done) => progress(done, events), ended)
      return events
    })
    return { events, seen }
  })
  await sql`
    select tracking.note_export(${first}::text::timestamp, ${file}, ${events}::bigint, ${seen}::text::pg_snapshot)`
  return events
}

const nothing = { events: 0, seen: '', isThere: false }

function noMonth(month: string, events: number): TrackingError {
  if (events === 0) return new TrackingError('42704', { details: `The log has no month ${month}.`, hint: 'It was dropped, or never was there.' })
  return new TrackingError('42704', {
    details: `The log has no month ${month} yet: what happened then (${events.toLocaleString('en')}) waits in tracking.events_default.`,
    hint: 'Make it: select tracking.make_partitions();',
  })
}

/**
 * Writes all that is held about a person to a file, a line for each row: `{"kind": "event", "data": {…}}`.
 *
 * @returns how many lines they are.
 * @throws {TrackingError} as `exportMonth` does.
 */
export async function exportActor(actor: string, { sql, file, progress, interrupted }: Export): Promise<number> {
  return inOneMoment(sql, interrupted, async (tx, ended) => writeWhole(file, ended, async (part) => {
    const rows = tx<Row[]>`
      select json_build_object('kind', x.kind, 'data', x.data)::text as line
      from   tracking.export_actor(${actor}) as x`
    return pour(rows, await LineFile.create(part), progress, ended)
  }))
}

/**
 * Reads everything as it is at one moment; times and intervals look the same, whatever the server is set to. Where the
 * connection ends, rows end as if there were no more of them, and the transaction does not wait for who reads: `ended`
 * tells, and they are waited for here.
 */
async function inOneMoment<T>(
  sql: Sql, interrupted: AbortSignal, read: (tx: TransactionSql, ended: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController()
  let reading: Promise<T> | undefined
  try {
    return await sql.begin('isolation level repeatable read read only', async (tx) => {
      await tx`
        select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),
               set_config('intervalstyle', 'postgres', true)`
      reading = read(tx, AbortSignal.any([interrupted, ending.signal]))
      return reading
    }) as T
  } catch (error) {
    ending.abort(error)
    await reading?.catch(() => {})
    throw error
  }
}

/** The columns of the log, with those that a project has added. */
async function readColumns(tx: TransactionSql): Promise<Column[]> {
  return tx<Column[]>`
    select a.attname as name, format_type(a.atttypid, null) as type, a.attnotnull as required
    from   pg_attribute as a
    where  a.attrelid = 'public.events'::regclass
    and    a.attnum > 0
    and    not a.attisdropped
    order  by a.attnum`
}

/** A column as it goes into Parquet. */
function selected({ name, type }: Column): string {
  const quoted = `"${name.replaceAll('"', '""')}"`
  if (['boolean', 'smallint', 'integer'].includes(type)) return `e.${quoted}`
  const micros = `(extract(epoch from e.${quoted}) * 1000000)::bigint`
  return `${type === 'timestamp with time zone' ? micros : `e.${quoted}`}::text as ${quoted}`
}


// Files ---------------------------------------------------------------------------------------------

/** What rows are written to. */
type Output = { write(rows: readonly Row[]): Promise<void>, finish(): Promise<void>, close?(): Promise<void> }

/** Rows at once: with 70 KB each at most, that is what an export takes of memory, but for what Parquet collects. */
const page = 500

async function pour(
  rows: { cursor(rows: number): AsyncIterable<readonly Row[]> }, output: Output,
  progress: (done: number) => void, ended: AbortSignal,
): Promise<number> {
  let done = 0
  try {
    for await (const some of rows.cursor(page)) {
      ended.throwIfAborted()
      await output.write(some)
      progress(done += some.length)
    }
    await output.finish()
    return done
  } finally {
    await output.close?.()
  }
}

/** Has a file written beside its place, and puts it there when it has as many rows as there are, on the disk. */
async function writeWhole(file: string, ended: AbortSignal, write: (part: string) => Promise<number>): Promise<number> {
  const part = `${file}.part`
  if (await exists(file)) throw fault('file_exists', `${file} is there already.`, 'Name another, or move it away.')
  try {
    await open(part, 'w', 0o600).then((handle) => handle.close()) // it is about people
    const rows = await write(part)
    await sync(part)
    const written = await (file.endsWith('.parquet') ? countParquet(part) : countLines(part))
    if (written !== rows) {
      throw fault('file_incomplete', `${file} has ${written} rows of ${rows}.`, 'Try again, on another disk.')
    }
    ended.throwIfAborted()
    await rename(part, file)
    return rows
  } catch (error) {
    await rm(part, { force: true }).catch(() => {})
    throw isOfFiles(error) ? fault('file_unwritable', `${file} cannot be written: ${error.message}.`, 'Name another file.') : error
  }
}

const exists = (path: string): Promise<boolean> => access(path).then(() => true, () => false)

const isOfFiles = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && 'syscall' in error && ['open', 'write', 'fsync', 'rename', 'access'].includes(String(error.syscall))

function fault(code: string, details: string, hint: string): TrackingError {
  return new TrackingError(code, { details, hint })
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r+')
  await file.sync().finally(() => file.close())
}

async function countLines(path: string): Promise<number> {
  let lines = 0
  for await (const chunk of createReadStream(path)) {
    for (let at = (chunk as Buffer).indexOf(10); at !== -1; at = (chunk as Buffer).indexOf(10, at + 1)) lines++
  }
  return lines
}

/** A file of lines, one a row. */
class LineFile implements Output {
  private constructor(private readonly file: FileHandle) {}

  static async create(path: string): Promise<LineFile> {
    return new LineFile(await open(path, 'a'))
  }

  async write(rows: readonly Row[]): Promise<void> {
    await this.file.appendFile(rows.map(({ line }) => `${line}\n`).join(''))
  }

  async finish(): Promise<void> {}

  async close(): Promise<void> {
    await this.file.close()
  }
}

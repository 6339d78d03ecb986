import { asyncBufferFromFile, parquetMetadataAsync, type SchemaElement } from 'hyparquet'
import { fileWriter, ParquetWriter } from 'hyparquet-writer'

/** A column of a table, with its type as Postgres calls it. */
export type Column = { name: string, type: string, required: boolean }

/** A row: texts, numbers and booleans; times are microseconds since 1970, as texts. */
export type Row = Record<string, unknown>

/** What is written together: so many rows, or so many characters of them. */
const groupRows = 10_000, groupLength = 8_000_000

/** A Parquet file that rows are added to. Of what it is given, it holds no more than is written together. */
export class ParquetFile {
  private readonly writer: ParquetWriter
  private group: Row[] = []
  private length = 0

  constructor(path: string, private readonly columns: Column[]) {
    const root: SchemaElement = { name: 'events', num_children: columns.length }
    this.writer = new ParquetWriter({
      writer: fileWriter(path), schema: [root, ...columns.map(elementOf)], createdBy: 'actorscope' })
  }

  async write(rows: readonly Row[]): Promise<void> {
    for (const row of rows) {
      this.group.push(row)
      for (const value of Object.values(row)) this.length += typeof value === 'string' ? value.length : 8
    }
    if (this.group.length >= groupRows || this.length >= groupLength) await this.flush()
  }

  /** Writes what is left, and the end of the file. */
  async finish(): Promise<void> {
    if (this.group.length > 0) await this.flush()
    await this.writer.finish()
  }

  private async flush(): Promise<void> {
    const columnData = this.columns.map((column) => ({
      name: column.name, data: this.group.map((row) => valueOf(column, row[column.name])) }))
    await this.writer.write({ columnData, rowGroupSize: this.group.length })
    this.group = []
    this.length = 0
  }
}

const elements: Record<string, Omit<SchemaElement, 'name'>> = {
  'uuid': { type: 'FIXED_LEN_BYTE_ARRAY', type_length: 16, logical_type: { type: 'UUID' } },
  'timestamp with time zone': {
    type: 'INT64', converted_type: 'TIMESTAMP_MICROS',
    logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' } },
  'boolean': { type: 'BOOLEAN' },
  'smallint': { type: 'INT32' },
  'integer': { type: 'INT32' },
  'bigint': { type: 'INT64' },
  'xid8': { type: 'INT64' },
}
const aText: Omit<SchemaElement, 'name'> = {
  type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } }

function elementOf({ name, type, required }: Column): SchemaElement {
  return { name, ...elements[type] ?? aText, repetition_type: required ? 'REQUIRED' : 'OPTIONAL' }
}

function valueOf({ type }: Column, value: unknown): unknown {
  return elements[type]?.type === 'INT64' && value !== null ? BigInt(value as string) : value
}

/** How many rows a Parquet file says that it has. */
export async function countParquet(path: string): Promise<number> {
  const { num_rows } = await parquetMetadataAsync(await asyncBufferFromFile(path))
  return Number(num_rows)
}

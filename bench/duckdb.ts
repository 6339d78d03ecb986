import { chmod, mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api'
import type { Sql } from 'postgres'

/** As many threads as DuckDB may use. */
const threads = 2

const tables = {
  'public.events': {
    scope_id: 'uuid', occurred_at: 'timestamp', event_id: 'uuid', org_id: 'uuid', actor_id: 'uuid', app_id: 'varchar',
    event: 'varchar', channel: 'varchar', icon: 'varchar', tags: 'json', context: 'json', source: 'varchar',
    received_at: 'timestamp', txid: 'ubigint',
  },
  'public.build_requests': {
    id: 'uuid', owner_org: 'uuid', app_id: 'varchar', requested_by: 'uuid', platform: 'varchar', build_mode: 'varchar',
    status: 'varchar', last_error: 'varchar', created_at: 'timestamp', started_at: 'timestamp', completed_at: 'timestamp',
  },
}

/** A DuckDB with a log and its builds, in a file of its own format. */
export type Duck = {
  /** Megabytes of the file. */
  readonly size: number
  /** The rows of an answer, in portions. */
  ask(query: string): AsyncIterable<unknown[][]>
  /** Has a question answered, and reads the answer without a look at it. */
  run(query: string): Promise<void>
  close(): void
}

/** Copies the log and the builds of a database, by way of a folder. */
export async function openDuck(sql: Sql, folder: string): Promise<Duck> {
  const path = join(folder, `${sql.options.database}.duckdb`)
  const instance = await DuckDBInstance.create(path, { threads: String(threads) })
  const connection = await instance.connect()
  await connection.run('create schema public')
  const exchange = join(folder, 'exchange') // where the server may write, too
  await mkdir(exchange)
  await chmod(exchange, 0o777)
  for (const [table, columns] of Object.entries(tables)) await copyTable(sql, connection, exchange, table, columns)
  await rm(exchange, { recursive: true })
  await connection.run('checkpoint')
  return {
    size: (await stat(path)).size / 2 ** 20,
    ask: async function* (query) { yield* (await connection.stream(query)).yieldRowsJson() },
    run: async (query) => {
      const answer = await connection.stream(query)
      for (let rows = 1; rows > 0;) rows = (await answer.fetchChunk())?.rowCount ?? 0
    },
    close: () => { connection.closeSync(); instance.closeSync() },
  }
}

async function copyTable(sql: Sql, connection: DuckDBConnection, folder: string, table: string, columns: Record<string, string>): Promise<void> {
  const names = Object.keys(columns).join()
  const file = join(folder, 'rows.csv')
  await connection.run(`create table ${table} (${Object.entries(columns).map((column) => column.join(' ')).join()})`)
  const partitions = await sql<{ name: string }[]>`
    select relid::regclass::text as name from pg_partition_tree(${table}::text::regclass) where isleaf order by 1`
  for (const { name } of partitions.length > 0 ? partitions : [{ name: table }]) { // one by one, that no file is large
    await sql.unsafe(`copy (select ${names} from ${name}) to '${file}' with (format csv, header)`)
    await connection.run(`insert into ${table} select * from read_csv('${file}', header = true, columns = ${literal(columns)})`)
    await rm(file)
  }
}

const literal = (value: object): string => JSON.stringify(value).replaceAll('"', `'`)

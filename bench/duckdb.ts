import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api'
import type { Sql } from 'postgres'

/** As many threads as DuckDB may use. */
const threads = 2

const eventTypes = {
  scope_id: 'uuid', occurred_at: 'timestamp', event_id: 'uuid', org_id: 'uuid', actor_id: 'uuid', app_id: 'varchar', api_key_id: 'uuid',
  event: 'varchar', channel: 'varchar', description: 'varchar', icon: 'varchar', parser: 'varchar', notify: 'boolean', tags: 'json',
  context: 'json', tracking_version: 'smallint', source: 'varchar', received_at: 'timestamp', txid: 'ubigint',
}
const buildTypes = {
  id: 'uuid', owner_org: 'uuid', app_id: 'varchar', requested_by: 'uuid', platform: 'varchar', build_mode: 'varchar', status: 'varchar',
  last_error: 'varchar', created_at: 'timestamp', started_at: 'timestamp', completed_at: 'timestamp',
}

/** A DuckDB with the log and the builds, in a file of its own format. */
export type Duck = {
  /** Asks a question and answers with the rows, as text. */
  ask(query: string): Promise<unknown[][]>
  /** Asks a question, reads all of the answer, and answers with the milliseconds that it took. */
  time(query: string): Promise<number>
  close(): void
}

/** Copies the log and the builds of a database, by way of a folder that its server can write to. */
export async function openDuck(sql: Sql, folder: string): Promise<Duck> {
  const instance = await DuckDBInstance.create(`${folder}/log.duckdb`, { threads: String(threads) })
  const connection = await instance.connect()
  await connection.run('create schema public')
  const partitions = await sql<{ name: string }[]>`
    select inhrelid::regclass::text as name from pg_inherits where inhparent = 'public.events'::regclass order by 1`
  await copyTables(sql, connection, folder, 'public.events', eventTypes, partitions.map(({ name }) => name))
  await copyTables(sql, connection, folder, 'public.build_requests', buildTypes, ['public.build_requests'])
  await connection.run('checkpoint')
  return {
    ask: async (query) => (await connection.runAndReadAll(query)).getRowsJson(),
    time: async (query) => {
      const startedAt = performance.now()
      const result = await connection.stream(query)
      while ((await result.fetchChunk())?.rowCount) { /* read it to its end */ }
      return performance.now() - startedAt
    },
    close: () => { connection.closeSync(); instance.closeSync() },
  }
}

async function copyTables(
  sql: Sql, connection: DuckDBConnection, folder: string, into: string, types: Record<string, string>, tables: string[],
): Promise<void> {
  const columns = Object.keys(types).join()
  await connection.run(`create table ${into} (${Object.entries(types).map(([name, type]) => `${name} ${type}`).join()})`)
  const csvTypes = JSON.stringify({ ...types }).replaceAll('"', `'`)
  for (const table of tables) {
    const file = `${folder}/rows.csv`
    await sql.unsafe(`copy (select ${columns} from ${table}) to '${file}' with (format csv, header)`)
    await connection.run(`insert into ${into} select * from read_csv('${file}', header = true, columns = ${csvTypes})`)
  }
}

import { execFile } from 'node:child_process'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Sql } from 'postgres'
import { connect, localPassword, migrate, seedOnce, standIn } from '../src/database.ts'
import { freePort, startPostgres } from '../src/postgres.ts'

/** What pgbench shall run, by every one of four clients at once. */
export type Bout = {
  readonly script: string
  /** Transactions of each client. */
  readonly transactions: number
  readonly login: 'postgres' | 'authenticator'
  readonly database?: string
  /** `prepared` sends variables as parameters, as the Data API does; `simple` puts them into the text. */
  readonly protocol?: 'prepared' | 'simple'
  readonly variables?: Readonly<Record<string, string>>
}

/** A Postgres of one's own to measure in, with the demo world in the database `ring`. */
export type Ring = {
  readonly sql: Sql
  /** A folder that the server can read. */
  readonly folder: string
  readonly supaAudit: string | undefined
  /** Runs pgbench and answers with its transactions a second. */
  fight(bout: Bout): Promise<number>
  setDurable(durable: boolean): Promise<void>
  /** Makes another demo world and connects to it. */
  furnish(database: string): Promise<Sql>
  close(): Promise<void>
}

export const clients = 4

/** Starts a Postgres with its defaults, fsync among them, in a temporary folder. */
export async function startRing(supaAuditPath?: string): Promise<Ring> {
  const folder = await mkdtemp(join(tmpdir(), 'actorscope-bench-'))
  await chmod(folder, 0o755)
  const server = await startPostgres({
    port: await freePort(),
    dataDir: join(folder, 'data'),
    parameters: { max_wal_size: '8GB', shared_buffers: '1GB', autovacuum: 'off' },
  })
  const url = (database: string) => `postgres://postgres:${localPassword}@127.0.0.1:${server.port}/${database}`
  const admin = connect(url('postgres'), { max: 1 })
  const connections = [admin]

  const furnish = async (database: string) => {
    await admin.unsafe(`create database ${database}`)
    const sql = connect(url(database))
    connections.push(sql)
    await standIn(sql, localPassword)
    await migrate(url(database))
    await seedOnce(sql)
    return sql
  }

  const fight = async ({ script, transactions, login, database = 'ring', protocol = 'simple', variables = {} }: Bout) => {
    const file = join(folder, 'script.sql')
    await writeFile(file, script)
    const { stdout } = await promisify(execFile)('pgbench', [
      '--no-vacuum', `--file=${file}`, `--client=${clients}`, '--jobs=2', `--transactions=${transactions}`,
      `--protocol=${protocol}`, ...Object.entries(variables).map(([name, value]) => `--define=${name}=${value}`),
      '--host=127.0.0.1', `--port=${server.port}`, `--username=${login}`, database,
    ], { env: { ...process.env, PGPASSWORD: localPassword }, maxBuffer: 1e9 })
    const tps = /tps = ([\d.]+)/.exec(stdout)?.[1]
    if (!tps || !/failed transactions: 0 /.test(stdout)) throw new Error(`pgbench failed:\n${stdout}`)
    return Number(tps)
  }

  return {
    sql: await furnish('ring'),
    folder,
    supaAudit: supaAuditPath && await readFile(supaAuditPath, 'utf8'),
    fight,
    furnish,
    async setDurable(durable) {
      await admin.unsafe(`alter system set synchronous_commit = ${durable ? 'on' : 'off'}`)
      await admin`select pg_reload_conf()`
    },
    async close() {
      await Promise.all(connections.map((connection) => connection.end({ timeout: 1 })))
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

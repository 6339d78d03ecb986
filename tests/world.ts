import { createHmac, randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import type { Sql } from 'postgres'
import { inject } from 'vitest'
import ws from 'ws'
import { jwtSecret, publishableKey, secretKey, startApi, type Api } from '../src/api.ts'
import { admitApi, connect, localPassword, migrate, seedOnce, standIn } from '../src/database.ts'
import { freePort } from '../src/postgres.ts'

/** The databases that tests' databases are clones of. */
export const templates = { world: 'world_template', pgTap: 'pgtap_template' }

/** The demo world in a database of one's own, with an API over it. */
export type World = {
  readonly databaseUrl: string
  /** The database as superuser. */
  readonly sql: Sql
  readonly api: Api
  /** The database by another login, such as `authenticator`; closed with the world. */
  connectAs(login: string, password?: string): Sql
  /** A client with the publishable key alone. */
  anon(): SupabaseClient
  /** A client with the secret key: the service role. */
  service(): SupabaseClient
  /** A client with the publishable key and the header x-api-key. */
  withKey(key: string): SupabaseClient
  /** A client with the publishable key and a bearer token, good or bad. */
  withToken(token: string): SupabaseClient
  /** A client of somebody who signed in with the demo world's password. */
  signIn(email: string): Promise<SupabaseClient>
  /** Ends the API and drops the database. */
  close(): Promise<void>
}

/** Clones the demo world and starts an API over it. */
export async function createWorld(): Promise<World> {
  const clone = await cloneDatabase(templates.world)
  const sql = connect(clone.databaseUrl)
  const connections = [sql]
  const api = await startApi({ port: await freePort(), databaseUrl: asLogin(clone.databaseUrl, 'lite') })
  const client = (key: string, headers?: Record<string, string>) => createTestClient(api.url, key, headers)
  return {
    databaseUrl: clone.databaseUrl,
    sql,
    api,
    connectAs(login, password = localPassword) {
      const connection = connect(asLogin(clone.databaseUrl, login, password))
      connections.push(connection)
      return connection
    },
    anon: () => client(publishableKey),
    service: () => client(secretKey),
    withKey: (key) => client(publishableKey, { 'x-api-key': key }),
    withToken: (token) => client(publishableKey, { authorization: `Bearer ${token}` }),
    async signIn(email) {
      const supabase = client(publishableKey)
      const { error } = await supabase.auth.signInWithPassword({ email, password: 'password' })
      if (error) throw error
      return supabase
    },
    async close() {
      await api.stop()
      await Promise.all(connections.map((connection) => connection.end({ timeout: 1 })))
      await clone.drop()
    },
  }
}

/** Makes the demo world in an empty database: what `npm start` does, short of the API. */
export async function furnish(sql: Sql, databaseUrl: string): Promise<void> {
  await standIn(sql, localPassword)
  await migrate(databaseUrl)
  await seedOnce(sql)
  await admitApi(sql, databaseUrl, localPassword)
}

/** A database that goes with the test. */
export type Clone = { readonly databaseUrl: string, drop(): Promise<void> }

/** Clones a database of the tests' Postgres; `template1` makes an empty one. */
export async function cloneDatabase(template: string): Promise<Clone> {
  const serverUrl = inject('serverUrl')
  const name = `test_${randomBytes(6).toString('hex')}`
  const run = async (statement: string) => {
    const admin = connect(serverUrl, { max: 1 })
    await admin.unsafe(statement).finally(() => admin.end())
  }
  await run(`create database ${name} template ${template}`)
  return {
    databaseUrl: inDatabase(serverUrl, name),
    drop: () => run(`drop database ${name} with (force)`),
  }
}

/** A folder that goes with the test, open to the user that Postgres runs as. */
export async function temporaryFolder(): Promise<{ path: string, remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'actorscope-test-'))
  await chmod(path, 0o755)
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}

/** Signs a JWT as the local Auth does; with a secret of somebody else's, or claims of any kind. */
export function signToken(claims: object, secret = jwtSecret): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

/** The same server's other database. */
export function inDatabase(databaseUrl: string, name: string): string {
  const url = new URL(databaseUrl)
  url.pathname = name
  return url.href
}

/** The same database by another login. */
export function asLogin(databaseUrl: string, login: string, password = localPassword): string {
  const url = new URL(databaseUrl)
  url.username = login
  url.password = password
  return url.href
}

// Node 20 has no WebSocket of its own, and supabase-js wants one even where nothing is subscribed to.
function createTestClient(url: string, key: string, headers: Record<string, string> = {}): SupabaseClient {
  return createClient(url, key, {
    global: { headers },
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: ws as never },
  })
}

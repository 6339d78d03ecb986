// Where @supabase/lite does otherwise than PostgREST, in ways that a client or a test would notice, it is
// corrected here. Each correction says what lite does, and what PostgREST does instead.
import { AsyncLocalStorage } from 'node:async_hooks'
import type { AnyAST, VarsContext } from '@supabase/lite'
import { createPostgresConnection, type PostgresConnection } from '@supabase/lite/postgres'
import { sql, type Kysely } from 'kysely'
import { elementsOf, membersOf } from './json.ts'

/** The request that is being answered, as far as the database is told of it. */
export type CurrentRequest = {
  method: string
  /** The path below `/rest/v1`, as PostgREST sees it behind Supabase's gateway. */
  path: string
  headers: Record<string, string>
  /** The body as it was sent, where it is JSON. */
  json?: string
  /** The database role that the credentials stand for; known once they are checked. */
  role?: string
}

/** Carries the request to where the database is spoken to. */
export const currentRequest = new AsyncLocalStorage<CurrentRequest>()

/** Opens lite's connection to a database, corrected. */
export function connectLite(url: string): PostgresConnection {
  const connection = createPostgresConnection({ url, postgresOptions: { types, onnotice: () => {} } })
  const parsed = connection.onPostgrestAST.bind(connection)
  return Object.assign(connection, {
    ensureRlsContext: alwaysTakeTheRole,
    applyJwtSessionContext: describeRequest,
    applyRpcRequestGucs: alreadyDescribed,
    normalizeDbError: refuseAsPostgrest,
    onPostgrestAST: async (ast: AnyAST) => parsed(await keepTexts(connection, ast)),
  })
}

// lite grants ALL on every table of every schema that has a table with row-level security to the client roles,
// and takes on no role at all while there is none. PostgREST grants nothing and always takes on the role.
async function alwaysTakeTheRole(): Promise<boolean> {
  return true
}

// lite tells functions about the request's headers, method and path, and tables nothing of them; and it leaves
// the claims out where there is no JWT. PostgREST sets all of them for every request, the role among the claims.
async function describeRequest(db: Kysely<unknown>, vars: VarsContext): Promise<void> {
  const request = theRequest()
  const { role, jwt } = vars.auth as { role: string, jwt: object | null }
  request.role = role
  const { rows: [taken] } = await sql<{ isAllowed: boolean }>`select
    set_config('role', ${role}, true),
    set_config('request.jwt.claims', ${JSON.stringify({ ...jwt, role })}, true),
    set_config('request.headers', ${JSON.stringify(request.headers)}, true),
    set_config('request.method', ${request.method}, true),
    set_config('request.path', ${request.path}, true),
    pg_has_role('authenticator', ${role}, 'member') as "isAllowed"`.execute(db)
  // lite's login may take on any role. PostgREST's, authenticator, those that were granted to it.
  if (!taken?.isAllowed) throw new Refusal(403, { code: '42501', message: `permission denied to set role "${role}"` })
}

async function alreadyDescribed(): Promise<void> {}

function theRequest(): CurrentRequest {
  const request = currentRequest.getStore()
  if (!request) throw new Error('The database was asked outside of a request.')
  return request
}


// Errors ------------------------------------------------------------------------------------------------

type DatabaseError = { code: string, message: string, detail?: string, hint?: string }

/** An answer in the form of an error: Hono, which lite is built on, sends what `getResponse` gives. */
class Refusal extends Error {
  constructor(readonly status: number, readonly body: DatabaseError) {
    super(body.message)
  }

  getResponse(): Response {
    const { code, message, detail = null, hint = null } = this.body
    return Response.json({ code, details: detail, hint, message }, { status: this.status })
  }
}

// lite answers many errors of the database with 500, a violated check and a plain `raise exception` among them,
// drops the detail of others, and prints them all on the terminal. PostgREST has a status for every SQLSTATE.
function refuseAsPostgrest(error: unknown): unknown {
  if (error instanceof Refusal) throw error
  if (!isDatabaseError(error)) return error
  throw new Refusal(statusOf(error, currentRequest.getStore()?.role), error)
}

function isDatabaseError(error: unknown): error is DatabaseError {
  return error instanceof Error && error.name === 'PostgresError' && 'code' in error
}

/** The HTTP status that PostgREST gives an error of the database: its longest prefix here, else 400. */
const statuses: Record<string, number> = {
  '08': 503, '09': 500, '0L': 403, '0P': 403, '21000': 500, '23503': 409, '23505': 409, '25': 500, '25006': 405,
  '28': 403, '2D': 500, '38': 500, '39': 500, '3B': 500, '40': 500, '42883': 404, '42P01': 404, '42P17': 500,
  '53': 503, '53400': 500, '54': 500, '55': 500, '57': 500, '57P01': 503, '58': 500, F0: 500, HV: 500, P0: 500,
  P0001: 400, XX: 500,
  // PostgREST says 500 to JSON nested deeper than Postgres's stack. That is the sender's doing, and here 5xx is
  // to mean a fault of ours, always.
  '54001': 400,
}

function statusOf({ code, message }: DatabaseError, role = 'anon'): number {
  const chosen = /^PT([2-5]\d\d)$/.exec(code)?.[1]
  if (chosen) return Number(chosen)
  if (code === '42501') return role === 'anon' ? 401 : 403
  if (code === '22023' && /^role .* does not exist$/.test(message)) return 401
  return statuses[code] ?? statuses[code.slice(0, 2)] ?? 400
}


// Values ------------------------------------------------------------------------------------------------

/** A value for a column, as text for the column's type to read. An object, since lite would interpret a string. */
class ColumnText {
  constructor(readonly text: string) {}
  toString(): string { return this.text }
}

// lite turns the body into JavaScript values and those into parameters. On the way digits are lost, a string for
// a json argument is taken for JSON text, an object for a text column becomes "[object Object]", a number for a
// time column fails with 500, and deep nesting overflows the stack. PostgREST hands the text of the body to
// Postgres. So do these: every argument and column gets the text that was sent for it, for Postgres to judge.
async function keepTexts(connection: PostgresConnection, ast: AnyAST): Promise<AnyAST> {
  const { json } = theRequest()
  if (json === undefined) return ast
  if (ast.type === 'rpc') return { ...ast, args: argumentTexts(json, await argumentTypes(connection, ast)) }
  if (ast.type !== 'insert' && ast.type !== 'update') return ast
  if (typeof ast.values !== 'object' || ast.values === null) return ast
  const types = await columnTypes(connection, ast)
  const row = (text: string) => columnTexts(text, types)
  return { ...ast, values: Array.isArray(ast.values) ? rows(json, row) : row(json) }
}

type Types = Map<string, string>

async function argumentTypes(connection: PostgresConnection, ast: AnyAST): Promise<Types> {
  const { functions = [] } = await connection.introspect({ useCache: true })
  const found = functions.find((f) => f.name === ast.function && f.schema === (ast.schema ?? 'public'))
  return new Map(found?.arg_names.map((name, index) => [name, found.arg_types[index] ?? 'text']))
}

async function columnTypes(connection: PostgresConnection, ast: AnyAST): Promise<Types> {
  const { columns } = await connection.introspect({ useCache: true })
  const own = columns.filter((c) => c.table === ast.from && c.schema === (ast.schema ?? 'public'))
  return new Map(own.map((c) => [c.name, c.pg_type?.startsWith('_') ? `${c.type}[]` : c.type]))
}

// A body that is no object names no argument; lite takes the elements of an array for arguments by position.
function argumentTexts(json: string, types: Types): Record<string, unknown> {
  if (!json.trimStart().startsWith('{')) return {}
  return Object.fromEntries([...membersOf(json)].map(([name, text]) => [name, valueFor(types.get(name), text)]))
}

function columnTexts(json: string, types: Types): Record<string, unknown> {
  return Object.fromEntries([...membersOf(json)].map(([name, text]) => {
    const value = valueFor(types.get(name), text)
    return [name, typeof value === 'string' ? new ColumnText(value) : value]
  }))
}

function rows(json: string, row: (text: string) => unknown): object[] {
  return elementsOf(json).map((text) => (text.startsWith('{') ? row(text) : JSON.parse(text)))
}

/** What Postgres's `json_to_record` makes of a member of a JSON object, for a column of the type. */
function valueFor(type: string | undefined, text: string): unknown {
  if (text === 'null') return null
  if (type === 'json' || type === 'jsonb') return text
  if (type?.endsWith('[]') && text.startsWith('[')) return JSON.parse(text)
  return text.startsWith('"') ? wellFormed(JSON.parse(text)) : text
}

function wellFormed(text: string): string {
  if (text.isWellFormed()) return text
  throw new Refusal(400, {
    code: '22P02', message: 'invalid input syntax for type json', detail: 'A Unicode surrogate stands alone.' })
}

const asText = (value: unknown): string => String(value)
const asIsoTime = (text: string): string => text.replace(' ', 'T').replace(/[+-]\d\d$/, '$&:00')

// lite's and postgres.js's parameters are made of JavaScript values; here most are texts already. Times come back
// as Postgres's to_json writes them, 2026-11-05T09:30:00+00:00, and not as 2026-11-05 09:30:00+00; and a numeric of
// 0.5000 as the number that it is, where lite makes it a string.
const types = {
  json: { to: 114, from: [114], serialize: asJson, parse: JSON.parse },
  jsonb: { to: 3802, from: [3802], serialize: asJson, parse: JSON.parse },
  boolean: { to: 16, from: [16], serialize: asText, parse: (text: string) => text === 't' },
  numeric: { to: 1700, from: [1700], serialize: asText, parse: asNumber },
  bytea: { to: 17, from: [17], serialize: asBytes, parse: asText },
  date: { to: 1082, from: [1082], serialize: asText, parse: asText },
  time: { to: 1083, from: [1083], serialize: asText, parse: asText },
  timetz: { to: 1266, from: [1266], serialize: asText, parse: asText },
  timestamp: { to: 1114, from: [1114], serialize: asText, parse: asIsoTime },
  timestamptz: { to: 1184, from: [1184], serialize: asText, parse: asIsoTime },
}

function asNumber(text: string): number | string {
  const number = Number(text)
  return Number.isFinite(number) ? number : text
}

function asJson(value: unknown): string {
  return typeof value === 'string' || value instanceof ColumnText ? String(value) : JSON.stringify(value)
}

function asBytes(value: unknown): string {
  return value instanceof Uint8Array ? `\\x${Buffer.from(value).toString('hex')}` : String(value)
}

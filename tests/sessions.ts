import type { Sql, TransactionSql } from 'postgres'

/** A request's credentials, as the Data API tells the database of them. */
export type Caller = {
  readonly role: 'anon' | 'authenticated' | 'service_role'
  readonly sub?: string
  readonly headers?: Record<string, string>
}

export const person = (sub: string): Caller => ({ role: 'authenticated', sub })
export const holderOf = (key: string): Caller => ({ role: 'anon', headers: { 'x-api-key': key } })
export const nobody: Caller = { role: 'anon' }
export const service: Caller = { role: 'service_role' }

/** Runs work in one transaction with a caller's role and claims, as PostgREST does for a request. */
export async function as<T>(sql: Sql, caller: Caller, work: (tx: TransactionSql) => Promise<T>): Promise<T> {
  return await sql.begin(async (tx) => {
    await become(tx, caller)
    return work(tx)
  }) as T
}

/** Takes on a caller's role and claims, until the transaction ends. */
export async function become(tx: TransactionSql, { role, sub, headers = {} }: Caller): Promise<void> {
  await tx`select
    set_config('role', ${role}, true),
    set_config('request.jwt.claims', ${JSON.stringify({ role, sub })}, true),
    set_config('request.headers', ${JSON.stringify(headers)}, true)`
}

/** What `track_event` answers where it does not raise. */
export type Answer = { status: 'ok', event_id: string, duplicate?: true, warnings?: string[] }

/** What `track_events` answers. */
export type BatchAnswer = {
  results: { result: 'ok' | 'duplicate' | 'drop', event_id?: string, warnings?: string[], error?: ApiError }[]
  accepted: number
  duplicates: number
  dropped: number
}

/** An error as PostgREST answers it. */
export type ApiError = { code: string, message: string, details: string | null, hint: string | null }

/** Calls `track_event` in a transaction of the caller's. */
export async function trackEvent(tx: TransactionSql, payload: unknown): Promise<Answer> {
  const [row] = await tx<{ answer: Answer }[]>`select track_event(${JSON.stringify(payload)}::text::jsonb) as answer`
  return row!.answer
}

/** Calls `track_events` in a transaction of the caller's. */
export async function trackEvents(tx: TransactionSql, payloads: unknown): Promise<BatchAnswer> {
  const [row] = await tx<{ answer: BatchAnswer }[]>`select track_events(${JSON.stringify(payloads)}::text::jsonb) as answer`
  return row!.answer
}

/** Runs work that must fail, and gives the error that Postgres raised. */
export async function failureOf(work: Promise<unknown>): Promise<{ code: string, message: string }> {
  const error = await work.then(() => undefined, (cause: { code?: string, message: string }) => cause)
  if (!error) throw new Error('It was expected to be refused, and was not.')
  return { code: error.code ?? '', message: error.message }
}

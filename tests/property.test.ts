import fc from 'fast-check'
import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { anyJson, anyPayload, everyFieldOfEveryType } from './json.ts'
import { become, holderOf, nobody, person, service, type ApiError, type Caller } from './sessions.ts'
import { createWorld, type World } from './world.ts'

// What is sent may be anything. fast-check prints the seed and the path of what fails.

let world: World
let errors: Map<string, string>

beforeAll(async () => {
  world = await createWorld()
  const rows = await world.sql<{ message: string, code: string }[]>`select message, code from tracking.errors`
  errors = new Map(rows.map(({ message, code }) => [message, code]))
})
afterAll(() => world.close())
beforeEach(() => world.sql`delete from events`)

type Who = { name: string, caller: Caller, actor: string | null, apiKey: string | null, readable: string[] }
const ada: Who = { name: 'a person', caller: person(people.ada), actor: people.ada, apiKey: null, readable: [orgs.acme, orgs.demo] }
const key: Who = {
  name: 'an API key', caller: holderOf('as_local_acme_admin'), actor: people.ada,
  apiKey: '20000000-0000-4000-8000-000000000001', readable: [orgs.acme] }
const stranger: Who = { name: 'nobody', caller: nobody, actor: null, apiKey: null, readable: [] }


// Over HTTP -----------------------------------------------------------------------------------------------

describe.each([ada, key, stranger])('over HTTP, as $name', (who) => {
  const send = async (path: string, body: string | Uint8Array<ArrayBuffer>) => {
    const response = await fetch(`${world.api.url}/rest/v1/${path}`, {
      method: 'POST', body, headers: { 'content-type': 'application/json', apikey: publishableKey, ...await credentialsOf(who) } })
    return { status: response.status, body: await response.text() }
  }

  test('any payload of track_event is recorded as the caller\'s or refused in good form', async () => {
    let recorded = 0
    await fc.assert(fc.asyncProperty(fc.array(anyPayload, { minLength: 1, maxLength: 6 }), async (payloads) => {
      const answers = await Promise.all(payloads.map((payload) => send('rpc/track_event', `{"v2":${payload}}`)))
      const readable = await Promise.all(payloads.map(isJsonb))
      answers.forEach(({ status, body }, n) => expectAnswer(status, JSON.parse(body), who, readable[n]!))
      recorded += await expectRows(who, answers.flatMap(({ status, body }, n) => (
        status === 200 && !isBroadcast(payloads[n]!) ? idOfNew(JSON.parse(body)) : [])))
    }), { numRuns: 40 })
    expect(recorded > 0).toBe(who.actor !== null)
  })

  test('any batch of track_events is answered event by event, or refused in good form', async () => {
    await fc.assert(fc.asyncProperty(anyBatch, async (batch) => {
      const { status, body } = await send('rpc/track_events', `{"v2":${batch}}`)
      const answer = JSON.parse(body)
      if (status === 200) expectBatchAnswer(answer, JSON.parse(batch))
      else expectError(status, answer, who, await isJsonb(batch))
      await expectRows(who, status === 200 ? newIdsOf(answer, JSON.parse(batch)) : [])
    }), { numRuns: 40 })
  })

  test('any row written to the table is the caller\'s or refused', async () => {
    await fc.assert(fc.asyncProperty(anyRow(who), async (row) => {
      const { status, body } = await send('events', row)
      expect(status).toBeLessThan(500)
      if (status !== 201) expect(JSON.parse(body)).toMatchObject({ code: expect.any(String), message: expect.any(String) })
      expect(await takeRows(who)).toHaveLength(status === 201 ? 1 : 0)
    }), { numRuns: 40 })
  })

  test('any body at all is answered, and by less than 500', async () => {
    const anyBody = fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((bytes) => new Uint8Array(bytes)),
      anyJson, anyPayload, fc.string({ unit: 'binary' }),
      fc.tuple(anyPayload, fc.nat(200)).map(([payload, cut]) => `{"v2":${payload}}`.slice(0, cut)),
      fc.tuple(anyPayload, anyJson).map(([payload, other]) => `{"v2":${payload},"__proto__":${other},"other":${other}}`))
    await fc.assert(fc.asyncProperty(anyBody, fc.constantFrom('rpc/track_event', 'rpc/track_events', 'events'), async (body, path) => {
      const answer = await send(path, body)
      expect(answer.status).toBeLessThan(500)
      if (answer.body !== '') JSON.parse(answer.body)
      await takeRows(who)
    }), { numRuns: 40 })
  })

  test('every field with a value of every type is answered in good form', async () => {
    const answers = await Promise.all(everyFieldOfEveryType.map((payload) => send('rpc/track_event', `{"v2":${payload}}`)))
    for (const [n, { status, body }] of answers.entries()) {
      expectAnswer(status, JSON.parse(body), who, await isJsonb(everyFieldOfEveryType[n]!))
    }
    await takeRows(who)
  })

  test('after all that, the API answers at once and no connection is left in a transaction', async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => send('rpc/track_event', '{"v2":{"event":"Still here"}}')))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([who.actor ? 200 : 401]))
    expect(await takeRows(who)).toHaveLength(who.actor ? 30 : 0)
    expect(await world.sql`
      select query from pg_stat_activity
      where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid() and backend_type = 'client backend'`).toEqual([])
  }, 5_000)
})

async function credentialsOf({ caller }: Who): Promise<Record<string, string>> {
  if (!caller.sub) return caller.headers ?? {}
  adasToken ??= world.signIn('ada@acme.test').then(async (client) => (await client.auth.getSession()).data.session!.access_token)
  return { authorization: `Bearer ${await adasToken}` }
}
let adasToken: Promise<string> | undefined

const anyBatch = fc.oneof(
  { weight: 4, arbitrary: fc.array(anyPayload, { maxLength: 12 }).map((payloads) => `[${payloads.join(',')}]`) },
  { weight: 1, arbitrary: anyPayload },
  { weight: 1, arbitrary: fc.constantFrom(1000, 1001).map((length) => `[${Array(length).fill('{"event":"Many"}').join(',')}]`) })

// A sound row, and any values for any columns: the last of a name is what counts.
const columns = ['scope_id', 'occurred_at', 'event_id', 'org_id', 'actor_id', 'app_id', 'api_key_id', 'event', 'channel', 'description',
  'icon', 'parser', 'notify', 'tags', 'context', 'tracking_version', 'source', 'clock_skew', 'received_at', 'txid', 'epoch', 'nonesuch']
const anyValue = fc.oneof(
  anyJson, fc.constantFrom('"client"', '"service"', '"trigger"', '{}', '1', '2', 'null', '"com.acme.app"', '"com.evil.app"'),
  fc.constantFrom(...Object.values(people), ...Object.values(orgs)).map((id) => JSON.stringify(id)))
const anyRow = (who: Who): fc.Arbitrary<string> => fc.array(
  fc.tuple(fc.constantFrom(...columns), anyValue), { maxLength: 3 }).map((members) => {
  const at = new Date()
  const row = JSON.stringify({ scope_id: who.actor ?? people.ada, occurred_at: at, event_id: uuidV7(at), event: 'Direct' })
  return `${row.slice(0, -1)}${members.map(([name, value]) => `,"${name}":${value}`).join('')}}`
})


// In SQL, where there is time for more --------------------------------------------------------------------

describe.each([ada, key, { ...ada, name: 'the service role', caller: service }])('in SQL, as $name', (who) => {
  let sql: Sql
  beforeAll(() => { sql = world.connectAs('lite') }) // a login that is believed, and may look at what was written

  test('track_event judges any payload as track_events does, and both only ever raise their own errors', async () => {
    await fc.assert(fc.asyncProperty(anyPayload, async (payload) => {
      if (!(await isJsonb(payload))) return
      const alone = await judge(sql, who, async (tx) => {
        const [row] = await tx`select track_event(${payload}::text::jsonb) as answer`
        expect(await rowsWritten(tx, who)).toHaveLength(isBroadcast(payload) ? 0 : 1)
        return { verdict: 'ok', warnings: row!.answer.warnings }
      })
      const inBatch = await judge(sql, who, async (tx) => {
        const [row] = await tx`select track_events(jsonb_build_array(${payload}::text::jsonb)) as answer`
        const [result] = row!.answer.results
        return { verdict: result.error?.message ?? result.result, warnings: result.warnings }
      })
      expect(inBatch).toEqual(alone)
    }), { numRuns: 300 })
  })

  test('a sound event is recorded in whatever company it comes', async () => {
    const sound = '{"event":"Sound","tracking_version":2,"org_id":"a0000000-0000-4000-8000-000000000001"}'
    await fc.assert(fc.asyncProperty(fc.array(anyPayload, { maxLength: 8 }), fc.nat(8), async (payloads, place) => {
      const readable = await Promise.all(payloads.map(isJsonb))
      const all = payloads.filter((_, n) => readable[n]).toSpliced(place, 0, sound)
      await judge(sql, who, async (tx) => {
        const [row] = await tx`select track_events(${`[${all.join(',')}]`}::text::jsonb) as answer`
        const sent = all.map((text) => JSON.parse(text))
        expectBatchAnswer(row!.answer, sent)
        expect(row!.answer.results[all.indexOf(sound)]).toEqual({ result: 'ok', event_id: id })
        const written = await rowsWritten(tx, who)
        expect(written.map(({ event_id }) => event_id).sort()).toEqual(newIdsOf(row!.answer, sent).sort())
      })
    }), { numRuns: 100 })
  })
})

class Undone extends Error {}

/** Does work as a caller, and undoes it. An error of ours is a verdict too; any other is a failure. */
async function judge<T>(sql: Sql, who: Who, work: (tx: TransactionSql) => Promise<T>): Promise<T | object> {
  let result: T | undefined
  const error = await sql.begin(async (tx) => {
    await become(tx, who.caller)
    result = await work(tx)
    throw new Undone()
  }).catch((cause: { code?: string, message: string }) => cause)
  if (error instanceof Undone) return result as T
  const { code, message } = error as { code?: string, message: string }
  if (!errors.has(message)) throw error
  expect(code).toBe(errors.get(message))
  return { verdict: message, warnings: undefined }
}

async function rowsWritten(tx: TransactionSql, who: Who): Promise<Row[]> {
  await tx`select set_config('role', 'none', true)`
  const rows = await tx<Row[]>`select ${tx.unsafe(attribution)} from events where txid = pg_current_xact_id()`
  if (who.caller.role !== 'service_role') rows.forEach((row) => expectAttributed(row, who))
  return rows
}


// What an answer may be -----------------------------------------------------------------------------------

const id = expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)

function expectAnswer(status: number, answer: Record<string, unknown>, who: Who, readable: boolean): void {
  if (status !== 200) return expectError(status, answer as ApiError, who, readable)
  const { warnings = ['none'], duplicate = true, ...rest } = answer
  expect(rest).toEqual({ status: 'ok', event_id: id })
  expect(duplicate).toBe(true)
  expectWarnings(warnings)
}

function expectError(status: number, error: ApiError, who: Who, readable: boolean): void {
  expect(status).toBeGreaterThanOrEqual(400)
  expect(status).toBeLessThan(500)
  expect(Object.keys(error).sort()).toEqual(['code', 'details', 'hint', 'message'])
  if (!readable) return expect(error.code).not.toMatch(/^PT/) // Postgres could not read it, and says so itself
  expect(error.code).toBe(errors.get(error.message))
  expect(error.code).toBe(`PT${status}`)
  expect(error).toMatchObject({ details: expect.stringMatching(/\S/), hint: expect.stringMatching(/\S/) })
  if (!who.actor) expect(error.message).toBe('unauthenticated')
}

function expectBatchAnswer(answer: Record<string, any>, payloads: unknown[]): void {
  const { results, ...counts } = answer
  expect(results).toHaveLength(payloads.length)
  for (const { result, event_id, error, warnings = ['none'], ...rest } of results) {
    expect(rest).toEqual({})
    expect(['ok', 'duplicate', 'drop']).toContain(result)
    if (result !== 'drop') expect(event_id).toEqual(id)
    else expect(error).toEqual({
      code: errors.get(error.message), message: expect.any(String), details: expect.stringMatching(/\S/), hint: expect.stringMatching(/\S/) })
    expectWarnings(warnings)
  }
  const count = (wanted: string) => results.filter(({ result }: { result: string }) => result === wanted).length
  expect(counts).toEqual({ accepted: count('ok'), duplicates: count('duplicate'), dropped: count('drop') })
}

function expectWarnings(warnings: unknown): void {
  expect(warnings).toEqual(expect.arrayContaining([expect.any(String)]))
  expect((warnings as unknown[]).every((warning) => typeof warning === 'string' && /\S/.test(warning))).toBe(true)
}


// What may have been written ------------------------------------------------------------------------------

type Row = {
  event_id: string, scope_id: string, org_id: string | null, actor_id: string | null, api_key_id: string | null, source: string, epoch: number
  tags: Record<string, unknown>
}
const attribution = 'event_id, scope_id, org_id, actor_id, api_key_id, source, epoch, tags'

function expectAttributed(row: Row, who: Who): void {
  const { actor_id, api_key_id, source, epoch, scope_id, org_id } = row
  expect({ actor_id, api_key_id, source, epoch }).toEqual({ actor_id: who.actor, api_key_id: who.apiKey, source: 'client', epoch: 1 })
  expect([null, ...who.readable]).toContain(org_id)
  expect(scope_id).toBe(org_id ?? actor_id)
  expect([undefined, org_id]).toContain(row.tags.org_id)
}

/** Takes the rows that were written since, and makes sure of whose they are. */
async function takeRows(who: Who): Promise<Row[]> {
  const rows = await world.sql<Row[]>`delete from events returning ${world.sql.unsafe(attribution)}`
  rows.forEach((row) => expectAttributed(row, who))
  return rows
}

/** @returns how many rows there are. */
async function expectRows(who: Who, ids: string[]): Promise<number> {
  const rows = await takeRows(who)
  expect(rows.map((row) => row.event_id).sort()).toEqual(ids.sort())
  return rows.length
}

/** Says whether Postgres can read a text as JSON: not where it holds a NUL byte or half a character, or is too deep. */
async function isJsonb(text: string): Promise<boolean> {
  return world.sql`select ${text}::text::jsonb is null`.then(() => true, () => false)
}

const isBroadcast = (payload: string): boolean => JSON.parse(payload)?.notifyConsole === true

const idOfNew = ({ event_id, duplicate }: { event_id: string, duplicate?: true }): string[] => (duplicate ? [] : [event_id])

const newIdsOf = (answer: Record<string, any>, payloads: any[]): string[] => answer.results.flatMap(
  ({ result, event_id }: { result: string, event_id: string }, n: number) => (
    result === 'ok' && payloads[n]?.notifyConsole !== true ? [event_id] : []))

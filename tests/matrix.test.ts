// The attribution matrix: whoever calls, whatever they claim, and whichever way in they take, the log says who they
// are and speaks only for whom they may. Everything goes over HTTP with supabase-js; the expectation comes from
// tests/matrix-model.ts; the log is read from a second connection, whole, after every test.
//
// Every caller of the model (five people by password, four API keys, one of them also as capgkey, an unknown key, a
// key beside a JWT, the publishable key alone, five bad JWTs, the service role) is crossed with:
//
//   track_events, in batches      every org_id × every user_id × every app × every version
//   track_event, one at a time    every claim × every app × every version; version 1 claims it in user_id
//   track_events, one at a time   every claim × every app, in version 2
//   insert, one at a time         every claim × every app; every version; and each naming of a column that is the
//                                 database's × an org and app of one's own, of others, none
//   insert, many a request        every org_id × every app × (every version + each naming + a false scope_id + a
//                                 false org in the tags), by a function of the test's that inserts one row after
//                                 another as the caller
//
// A naming is a column (actor_id, api_key_id, source, received_at, txid, epoch) with a forged value, with null, and
// with the very value that the database would put there. All inserts are made twice: under the chapters' grants, and
// after `grant all on all tables in schema public to anon, authenticated`, when only the policy is left to refuse.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { orgs, people, uuidV7 } from './demo.ts'
import { forEach, openClients, timeOf, type Client } from './callers.ts'
import { apiKeys, apps, callers, insert, track, type Answer, type Caller, type Claim, type Insert, type Named, type Outcome, type Row, type Uuid } from './matrix-model.ts'
import { createWorld, type World } from './world.ts'

const unknown = 'a0000000-0000-4000-8000-0000000000ff'
const nil = '00000000-0000-0000-0000-000000000000'
const malformed = 'a0000000-0000-4000-8000'

const everyOrg = [undefined, '', ...Object.values(orgs), orgs.acme.toUpperCase(), unknown, nil, malformed]
const everyApp = [undefined, '', ...Object.keys(apps), 'com.unknown.app']
const everyVersion = [undefined, 1, 2, '2', 3]
const everyUser = (caller: Caller) => [...everyOrg, people.eve, people.bob.toUpperCase(), ...(caller.actor ? [caller.actor] : [])]

type Target = { org: Uuid, app: string }

/** An org and app that are nearest to the caller, and those of others: for what is sent one at a time. */
function nearAndFar({ orgs: [own], apps: [app] }: Caller): { near: Target, far: Target } {
  const acme = { org: orgs.acme, app: 'com.acme.app' }
  const evil = { org: orgs.evil, app: 'com.evil.app' }
  const demo = { org: orgs.demo, app: 'com.demo.app' }
  if (own === orgs.evil) return { near: evil, far: acme }
  return app === demo.app ? { near: demo, far: acme } : { near: acme, far: evil }
}
const fewOrgs = (caller: Caller) => [undefined, nearAndFar(caller).near.org, nearAndFar(caller).far.org, unknown, nil, malformed]
const fewApps = (caller: Caller) => [undefined, nearAndFar(caller).near.app, nearAndFar(caller).far.app, 'com.unknown.app']

let world: World
let clients: Map<Caller, Client>

beforeAll(async () => {
  world = await createWorld()
  await world.sql.unsafe(insertEach)
  clients = await openClients(world)
})
afterAll(() => world.close())
beforeEach(() => world.sql`truncate events`)

const everybody = callers.map((caller) => [caller.name, caller] as const)

describe.each(everybody)('%s', (_, caller) => {
  const client = () => clients.get(caller)!

  test('speaks in a batch for none but themselves and theirs, whatever each event claims', async () => {
    const cases = product(everyOrg, everyUser(caller), everyApp, everyVersion).map(([org_id, user_id, app_id, tracking_version]) =>
      trackCase(caller, { org_id, user_id, app_id, tracking_version }))
    await expectOutcomes(cases, () => sendBatches(client(), cases))
  }, 60_000)

  test('speaks in a single event for none but themselves and theirs', async () => {
    const cases = product(fewOrgs(caller), fewApps(caller), everyVersion).flatMap(([claimed, app_id, tracking_version]) =>
      claims(caller, claimed, tracking_version).map((claim) => trackCase(caller, { ...claim, app_id, tracking_version })))
    await expectOutcomes(cases, () => forEach(cases, (one) => sendOne(client(), one)))
  }, 60_000)

  test('speaks in a batch of one for none but themselves and theirs', async () => {
    const cases = product(fewOrgs(caller), fewApps(caller)).map(([org_id, app_id]) =>
      trackCase(caller, { org_id, app_id, tracking_version: 2 }))
    await expectOutcomes(cases, async () => (await forEach(cases, (one) => sendBatches(client(), [one]))).flat())
  }, 60_000)
})

describe.each(['chapters', 'all'] as const)('with the grants of %s, a direct insert', (grants) => {
  beforeAll(async () => {
    if (grants === 'all') await world.sql`grant all on all tables in schema public to anon, authenticated`
  })

  test.each(everybody)('by %s is attributed to them, and refused where it names what is the database\'s', async (_, caller) => {
    const { near, far } = nearAndFar(caller)
    const targets = [{}, { org_id: near.org, app_id: near.app }, { org_id: far.org, app_id: far.app }]
    const cases = [
      ...product(fewOrgs(caller), fewApps(caller)).map(([org_id, app_id]) => ({ org_id, app_id })),
      ...everyVersion.map((tracking_version) => ({ org_id: near.org, app_id: near.app, tracking_version })),
      ...product(targets, namings(caller).filter(knownBeforehand)).map(([target, named]) => ({ ...target, named })),
    ].map((claim) => insertCase(caller, claim, grants))
    await expectOutcomes(cases, () => forEach(cases, (one) => insertOne(clients.get(caller)!, one)))
  }, 60_000)

  test.each(everybody)('by %s is so for every org, app, version and column', async (_, caller) => {
    const variants: Insert[] = [
      ...everyVersion.map((tracking_version) => ({ tracking_version })),
      ...namings(caller).map((named) => ({ named })),
      { lie: { scope_id: uuidV7() } },
      { lie: { tags: { org_id: uuidV7() } } },
    ]
    const cases = product(everyOrg, everyApp, variants)
      .filter(([org_id, app_id]) => org_id !== '' && app_id !== '')
      .map(([org_id, app_id, variant]) => insertCase(caller, { org_id, app_id, ...variant }, grants))
    await expectOutcomes(cases, () => insertMany(clients.get(caller)!, cases))
  }, 60_000)
})


// The cases ---------------------------------------------------------------------------------------------

/** What is sent, under an id of its own, and what must come of it. */
type Case = { id: Uuid, sent: Record<string, unknown>, expected: Outcome }

/** A claim as each version makes it: version 1 in user_id, version 2 in org_id, the second time beside a forged user_id. */
function claims(caller: Caller, claimed: string | undefined, version: number | string | undefined): Claim[] {
  if (version === 2) return [{ org_id: claimed }]
  if (version === '2') return [{ org_id: claimed, user_id: caller.actor === people.eve ? people.ada : people.eve }]
  return claimed || !caller.actor ? [{ user_id: claimed }] : [{}, { user_id: caller.actor }]
}

function trackCase(caller: Caller, claim: Claim): Case {
  const id = uuidV7()
  const { app_id, ...rest } = claim
  const sent = { event: 'Claimed', event_id: id, ...rest, tags: { app_id, org_id: orgs.evil } }
  return { id, sent, expected: track(caller, claim) }
}

function insertCase(caller: Caller, claim: Insert, grants: 'chapters' | 'all'): Case {
  const id = uuidV7()
  const { named, lie, ...rest } = claim
  const actor = named?.column === 'actor_id' ? named.value : caller.actor
  const sent = {
    scope_id: claim.org_id ?? actor ?? people.ada, occurred_at: timeOf(id), event_id: id, event: 'Inserted',
    ...rest, ...(named && { [named.column]: named.value }), ...lie }
  return { id, sent, expected: insert(caller, claim, grants) }
}

/** Each column that is the database's, with values that are not the database's, and with the one that is. */
function namings(caller: Caller): Named[] {
  const name = (column: Named['column'], truth: unknown, ...forgeries: unknown[]): Named[] => [
    ...forgeries.filter((value) => value !== truth).map((value) => ({ column, value, isTrue: false })),
    { column, value: truth, isTrue: true },
  ]
  return [
    ...name('actor_id', caller.actor, people.ada, people.eve, null),
    ...name('api_key_id', caller.apiKey, apiKeys.acmeAdmin, apiKeys.demoApp, null),
    ...name('source', 'client', 'service', 'trigger', null),
    ...name('received_at', 'now', '2026-01-01T00:00:00Z', null),
    ...name('txid', currentTxid, '3', null),
    ...name('epoch', 1, 0, 2, null),
  ]
}

/** Stands for the transaction's own id, which nobody can know before it runs. */
const currentTxid = 'current'
const knownBeforehand = (named: Named) => named.value !== currentTxid

type Product<T extends unknown[][]> = { [K in keyof T]: T[K] extends (infer Item)[] ? Item : never }[]

function product<T extends unknown[][]>(...lists: T): Product<T> {
  return lists.reduce<unknown[][]>((rows, list) => rows.flatMap((row) => list.map((item) => [...row, item])), [[]]) as Product<T>
}


// Sending -----------------------------------------------------------------------------------------------

/** What came back for one case: warnings where it was accepted, else the refusal. */
type Reply = { warnings: string[] } | { refused: Answer }
type Refusal = { code?: string, message: string, details?: string | null, hint?: string | null }

async function sendOne(client: Client, { id, sent }: Case): Promise<Reply> {
  const { status, data, error } = await client.rpc('track_event', { v2: sent })
  if (error) return refusal(status, error)
  const isOk = status === 200 && data.status === 'ok' && data.event_id === id && !data.duplicate
  return isOk ? { warnings: data.warnings ?? [] } : unexpected(status, data)
}

async function sendBatches(client: Client, cases: Case[]): Promise<Reply[]> {
  const replies: Reply[] = []
  for (let start = 0; start < cases.length; start += 1000) {
    const batch = cases.slice(start, start + 1000)
    const { status, data, error } = await client.rpc('track_events', { v2: batch.map(({ sent }) => sent) })
    if (!error) expect(data).toMatchObject(tally(data.results))
    replies.push(...batch.map((one, n) => (error ? refusal(status, error) : replyOf(one, data.results[n]))))
  }
  return replies
}

type Result = { result: 'ok' | 'drop', event_id?: Uuid, warnings?: string[], error?: Refusal }

function replyOf({ id }: Case, answer: Result): Reply {
  const { result, event_id, warnings = [], error } = answer
  if (error && result === 'drop') return refusal(Number(error.code?.slice(2)), error)
  return result === 'ok' && event_id === id ? { warnings } : unexpected(200, answer)
}

function tally(results: Result[]): object {
  const count = (result: string) => results.filter((one) => one.result === result).length
  return { accepted: count('ok'), duplicates: 0, dropped: count('drop') }
}

async function insertOne(client: Client, { sent }: Case): Promise<Reply> {
  const { status, data, error } = await client.from('events').insert(sent)
  if (error) return refusal(status, error)
  return status === 201 ? { warnings: [] } : unexpected(status, data)
}

async function insertMany(client: Client, cases: Case[]): Promise<Reply[]> {
  const { status, data, error } = await client.rpc('insert_each', { v2: cases.map(({ sent }) => sent) })
  const answered = (refused: Refusal | null) => (refused ? { refused: { status: 0, code: refused.code! } } : { warnings: [] })
  return cases.map((_, n) => (error ? refusal(status, error) : answered(data[n])))
}

// What the API does with an insert, for many rows, each on its own: with the caller's role, claims and headers.
const insertEach = `
  create function insert_each(v2 jsonb) returns jsonb language plpgsql volatile as $$
  declare
    v_row jsonb;
    v_answers jsonb[];
  begin
    for v_row in select jsonb_array_elements(v2) loop
      begin
        if v_row ->> 'txid' = 'current' then
          v_row := v_row || jsonb_build_object('txid', pg_current_xact_id()::text);
        end if;
        execute format('insert into public.events (%1$s) select %1$s from jsonb_populate_record(null::public.events, $1)',
          (select string_agg(quote_ident(k), ', ') from jsonb_object_keys(v_row) as k)) using v_row;
        v_answers := v_answers || 'null'::jsonb;
      exception when others then
        v_answers := v_answers || jsonb_build_object('code', SQLSTATE, 'message', SQLERRM);
      end;
    end loop;
    return to_jsonb(v_answers);
  end $$;
  grant execute on function insert_each to anon, authenticated, service_role`

// Every error of ours says what was wrong and how to go on.
function refusal(status: number, error: Refusal): Reply {
  const { code = '', message, details, hint } = error
  if (code.startsWith('PT') && !(details && hint)) return unexpected(status, error)
  return { refused: { status, code, message } }
}

const unexpected = (status: number, answer: unknown): Reply =>
  ({ refused: { status, code: 'unexpected', message: JSON.stringify(answer) } })


// Judging -----------------------------------------------------------------------------------------------

/** Sends the cases, and expects of each the answer and the row that the model says, and no other row anywhere. */
async function expectOutcomes(cases: Case[], send: () => Promise<Reply[]>): Promise<void> {
  const before = await countRows()
  const replies = await send()
  const rows = await readLog()
  expect(await countRows()).toEqual(before)

  const wrong = cases.flatMap(({ id, sent, expected }, n) => {
    const want = 'row' in expected ? { ...expected, rows: [expected.row] } : { ...expected, rows: [] }
    const got = { ...replies[n]!, rows: rows.get(id) ?? [] }
    rows.delete(id)
    return agrees(want, got) ? [] : [`sent ${show(sent)}\n  want ${show(want)}\n  got  ${show(got)}`]
  })
  const strays = [...rows].map(([id, found]) => `nobody sent ${id}, but there is ${show(found)}`)
  const complaints = [...wrong, ...strays]
  expect(complaints.slice(0, 5).join('\n'), `${complaints.length} of ${cases.length} cases`).toBe('')
}

type Judged = { rows: Row[] } & ({ warnings: string[] } | { refused: Answer })

function agrees(want: Judged, got: Judged): boolean {
  if (JSON.stringify(want.rows) !== JSON.stringify(got.rows)) return false
  if ('refused' in want) return 'refused' in got && answersAgree(want.refused, got.refused)
  return 'warnings' in got && want.warnings.length === got.warnings.length &&
    want.warnings.every((word, n) => got.warnings[n]!.includes(word))
}

function answersAgree(want: Answer, got: Answer): boolean {
  return want.code === got.code && (got.status === 0 || want.status === got.status) &&
    (want.message === undefined || want.message === got.message)
}

/** A value as JSON, with names for the ids that have one. */
function show(value: unknown): string {
  const names = Object.entries({ ...people, ...orgs, ...apiKeys, nil, unknown })
  return names.reduce((text, [name, id]) => text.replaceAll(id, name), JSON.stringify(value))
}

/** The whole log, as superuser, by the events' ids. */
async function readLog(): Promise<Map<Uuid, Row[]>> {
  const rows = await world.sql<(Row & { event_id: Uuid })[]>`
    select event_id, scope_id, org_id, actor_id, app_id, api_key_id, source, tracking_version, tags ->> 'org_id' as tag_org_id
    from   events`
  const log = new Map<Uuid, Row[]>()
  for (const { event_id, ...row } of rows) log.set(event_id, [...log.get(event_id) ?? [], row])
  return log
}

/** How many rows there are in every table but the log. */
async function countRows(): Promise<object[]> {
  return world.sql`
    select c.oid::regclass::text as name,
           (xpath('//c/text()', query_to_xml(format('select count(*) as c from %s', c.oid::regclass), false, true, '')))[1]::text as rows
    from   pg_class as c
    where  c.relnamespace in ('public'::regnamespace, 'tracking'::regnamespace, 'realtime'::regnamespace, 'auth'::regnamespace)
    and    c.relkind = 'r'
    and    not exists (select from pg_inherits as i where i.inhrelid = c.oid and i.inhparent = 'public.events'::regclass)
    order  by 1`
}

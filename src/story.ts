import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import ws from 'ws'
import { publishableKey, secretKey } from './api.ts'
import { projectDir } from './settings.ts'
import { Named, Stage, type Answer } from './stage.ts'

// The demo world, as far as the story speaks of it (seed.sql has it all).
const acme = 'a0000000-0000-4000-8000-000000000001'
const demo = '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11'
const ada = '10000000-0000-4000-8000-000000000001'
const bob = '10000000-0000-4000-8000-000000000002'
const names: Record<string, string> = { [ada]: 'ada', [bob]: 'bob', [acme]: 'Acme', [demo]: 'Demo' }

/** Everybody who speaks in the story, each over HTTP and with credentials of their own. */
type Cast = Record<'program' | 'ada' | 'bob' | 'eve' | 'builder', SupabaseClient>

/** A row of public.events, as far as the story looks at it. */
type EventRow = {
  event_id: string
  occurred_at: string
  event: string
  actor_id: string
  org_id: string | null
  app_id: string | null
  source: string
}

/**
 * Plays the story on the terminal: real calls over HTTP, their answers, what they prove, and the file that a worker
 * delivers to. The ids of its events are new every time, so it can be played again and again.
 *
 * @returns whether everything was as it said
 */
export async function playStory(apiUrl: string, eventsFile: string, print: (text: string) => void): Promise<boolean> {
  const began = new Date().toISOString()
  const cast = await gather(apiUrl)
  const stage = new Stage(print)
  await stage.scene('A program reports what it did. It has an API key, and names nobody', () => report(stage, cast))
  await stage.scene('A person signs in and tracks an event. Sent twice, it is one row', () => sendTwice(stage, cast))
  await stage.scene('An outsider speaks for an organization', () => trespass(stage, cast))
  await stage.scene('Somebody claims to be somebody else', () => impersonate(stage, cast))
  await stage.scene('Somebody writes to the table directly, under another name', () => forge(stage, cast))
  await stage.scene('An old client, with the organization in user_id, still works', () => speakVersion1(stage, cast))
  await stage.scene('A build speaks for itself: its changes of status are events', () => build(stage, cast))
  await stage.scene('What an analyst sees', () => analyse(stage, cast, began))
  await stage.scene('What happened goes on: here to a file, elsewhere to PostHog, LogSnag, Bento or a webhook', () =>
    deliver(stage, cast, began, eventsFile))
  const { stated, broken } = stage.promises
  print(`\n${broken === 0 ? `All ${stated} promises hold.` : `${broken} of ${stated} promises do not hold.`}`)
  return broken === 0
}

async function gather(apiUrl: string): Promise<Cast> {
  const client = (key: string, headers: Record<string, string> = {}) => createClient(apiUrl, key, {
    global: { headers },
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: ws as never },
  })
  const signIn = async (email: string) => {
    const supabase = client(publishableKey)
    const { error } = await supabase.auth.signInWithPassword({ email, password: 'password' })
    if (error) throw error
    return supabase
  }
  return {
    program: client(publishableKey, { 'x-api-key': 'as_local_demo_app' }),
    ada: await signIn('ada@acme.test'),
    bob: await signIn('bob@acme.test'),
    eve: await signIn('eve@evil.test'),
    builder: client(secretKey),
  }
}

async function report(stage: Stage, cast: Cast): Promise<void> {
  const file = 'tests/fixtures/capgo-cli-8.68.1.jsonl'
  const lines = (await readFile(join(projectDir, file), 'utf8')).trim().split('\n')
  const recorded = lines.map((line) => JSON.parse(line))
  const { data, error } = await stage.call(cast.program,
    `with the header x-api-key: as_local_demo_app\n` +
    `recorded: the ${recorded.length} payloads of ${file}, which a real client sent`,
    { rpc: 'track_events', args: { v2: new Named('recorded', recorded) } })
  if (error) throw new Error(error.message)
  const ids = data.results.map((result: { event_id: string }) => result.event_id)
  const rows = await eventsById(cast.ada, ids)
  showEvents(stage, rows, 4)
  const complete = data.accepted === recorded.length && rows.length === recorded.length
  stage.promise(complete, `all ${recorded.length} were recorded`)
  stage.promise(rows.every((row) => row.actor_id === ada), 'the actor is ada, who owns the key')
  stage.promise(rows.every((row) => row.org_id === demo), 'the org is Demo, also where the payload named only the app')
}

async function sendTwice(stage: Stage, cast: Cast): Promise<void> {
  const event_id = newEventId()
  const tags = { app_id: 'com.acme.app', format: 'csv' }
  const v2 = { event: 'Report Exported', event_id, tracking_version: 2, org_id: acme, tags }
  const first = await stage.call(cast.bob, 'signed in as bob@acme.test', { rpc: 'track_event', args: { v2 } })
  stage.show(first)
  const second = await stage.call(cast.bob, 'the same v2 again, as after a lost connection', {
    rpc: 'track_event', args: { v2: new Named('v2', v2) } })
  stage.show(second)
  const rows = await eventsById(cast.ada, [event_id])
  showEvents(stage, rows)
  stage.promise(first.data?.status === 'ok' && !first.data.duplicate, 'the first time it is recorded')
  stage.promise(second.data?.duplicate === true, 'the second time it is a duplicate, and no error')
  stage.promise(rows.length === 1 && isBy(rows[0], bob, acme), 'there is one row, by bob, for Acme')
}

async function trespass(stage: Stage, cast: Cast): Promise<void> {
  const event_id = newEventId()
  const v2 = { event: 'Contract Signed', event_id, tracking_version: 2, org_id: acme }
  const answer = await stage.call(cast.eve, 'signed in as eve@evil.test, who has no role in Acme', {
    rpc: 'track_event', args: { v2 } })
  stage.show(answer)
  const refused = answer.status === 403 && answer.error?.message === 'no_permission'
  stage.promise(refused, 'refused, with the reason and the way out')
  await promiseNothingWritten(stage, [cast.ada, cast.eve], event_id)
}

async function impersonate(stage: Stage, cast: Cast): Promise<void> {
  const event_id = newEventId()
  const v2 = { event: 'Bonus Approved', event_id, tracking_version: 2, org_id: acme, user_id: ada }
  const answer = await stage.call(cast.bob, 'signed in as bob; the user_id is ada\'s', {
    rpc: 'track_event', args: { v2 } })
  stage.show(answer)
  const rows = await eventsById(cast.ada, [event_id])
  showEvents(stage, rows)
  stage.promise(answer.data?.warnings?.length === 1, 'the client is told')
  stage.promise(rows.length === 1 && isBy(rows[0], bob, acme), 'the actor is bob')
}

async function forge(stage: Stage, cast: Cast): Promise<void> {
  const event_id = newEventId()
  const occurred_at = timeOf(event_id)
  const answer = await stage.call(cast.bob, 'signed in as bob; the actor_id is ada\'s', {
    insertInto: 'events',
    row: { scope_id: acme, occurred_at, event_id, org_id: acme, actor_id: ada, event: 'Bonus Approved' },
  })
  stage.show(answer)
  stage.promise(answer.status === 403 && answer.error?.code === '42501', 'the table defends itself')
  await promiseNothingWritten(stage, [cast.ada, cast.bob], event_id)
}

async function speakVersion1(stage: Stage, cast: Cast): Promise<void> {
  const event_id = newEventId()
  const v2 = { event: 'App Created', channel: 'app-created', event_id, user_id: acme, icon: '🎉' }
  const answer = await stage.call(cast.bob, 'signed in as bob; no tracking_version, and Acme in user_id', {
    rpc: 'track_event', args: { v2 } })
  stage.show(answer)
  const rows = await eventsById(cast.ada, [event_id])
  showEvents(stage, rows)
  stage.promise(rows.length === 1 && isBy(rows[0], bob, acme), 'actor and org are told apart')
}

async function build(stage: Stage, cast: Cast): Promise<void> {
  const requested = await stage.call(cast.ada, 'signed in as ada', {
    rpc: 'request_build', args: { app_id: 'com.acme.app', platform: 'ios', build_mode: 'release' } })
  if (requested.error) throw new Error(requested.error.message)
  const id = requested.data.id
  for (const status of ['running', 'succeeded']) {
    const { error } = await stage.call(cast.builder, 'the builder, with the secret key', {
      update: 'build_requests', set: { status }, id: new Named('build.id', id) })
    if (error) throw new Error(error.message)
  }
  const rows = await read(cast.ada.from('events').select().eq('tags->>build_id', id).order('event_id'))
  showEvents(stage, rows)
  const told = rows.map((row) => row.event).join(', ')
  stage.promise(told === 'Build Requested, Build Started, Build Succeeded', 'three events, in order')
  stage.promise(rows.every((row) => isBy(row, ada, acme)), 'by ada, who asked for the build, for Acme')
}

async function analyse(stage: Stage, cast: Cast, began: string): Promise<void> {
  const own = cast.ada.from('events').select().gte('occurred_at', began)
  const rows = await read(own.order('occurred_at', { ascending: false }).limit(8))
  showEvents(stage, rows)
  const foreign = await read(cast.eve.from('events').select().in('org_id', [acme, demo]))
  const attributed = rows.length > 0 && rows.every((row) => row.actor_id && row.org_id)
  stage.promise(attributed, 'every event has its actor and its org')
  stage.promise(foreign.length === 0, 'eve, of another org, sees none of them')
}

async function deliver(stage: Stage, cast: Cast, began: string, eventsFile: string): Promise<void> {
  const rows = await read(cast.ada.from('events').select().gte('received_at', began).order('event_id'))
  const told = new Set(rows.map((row) => row.event_id))
  let lines: EventRow[] = []
  for (const until = Date.now() + 10_000; lines.length < told.size && Date.now() < until; await sleep(100)) {
    const written = (await readFile(eventsFile, 'utf8').catch(() => '')).split('\n').filter((line) => line.endsWith('}'))
    lines = written.map((line): EventRow => JSON.parse(line)).filter((row) => told.has(row.event_id))
  }
  stage.output(`tail -n 3 ${eventsFile} | jq -c '[.occurred_at, .event, .actor_id, .org_id]'`, lines.slice(-3)
    .map((row) => JSON.stringify([row.occurred_at, row.event, row.actor_id, row.org_id])))
  const delivered = new Set(lines.map((row) => row.event_id)).size === told.size
  stage.promise(told.size > 0 && delivered, `all ${told.size} events that ada may see are there`)
  stage.promise(lines.length === told.size, 'each of them once')
}

async function promiseNothingWritten(stage: Stage, readers: SupabaseClient[], event_id: string) {
  const found = await Promise.all(readers.map((reader) => eventsById(reader, [event_id])))
  stage.promise(found.flat().length === 0, 'nothing was written')
}

function showEvents(stage: Stage, rows: EventRow[], atMost = 10): void {
  const name = (id: string | null) => (id ? names[id] ?? id : '–')
  const time = (row: EventRow) => new Date(row.occurred_at).toISOString().slice(11, 23)
  const cells = rows.slice(0, atMost).map((row) => [
    time(row), row.event, name(row.actor_id), name(row.org_id), row.app_id ?? '–', row.source])
  if (rows.length > atMost) cells.push(['…', `and ${rows.length - atMost} more`])
  stage.table(['time (UTC)', 'event', 'actor', 'org', 'app', 'source'], cells)
}

function isBy(row: EventRow | undefined, actor: string, org: string): boolean {
  return row?.actor_id === actor && row.org_id === org
}

async function eventsById(reader: SupabaseClient, ids: string[]): Promise<EventRow[]> {
  return read(reader.from('events').select().in('event_id', ids).order('event_id'))
}

type Reading = PromiseLike<{ data: EventRow[] | null, error: Answer['error'] }>

async function read(reading: Reading): Promise<EventRow[]> {
  const { data, error } = await reading
  if (error || !data) throw new Error(error?.message ?? 'No rows were answered.')
  return data
}

/** A new UUIDv7: the time in milliseconds, then random bits. */
function newEventId(): string {
  const random = (digits: number) => randomBytes(digits).toString('hex').slice(0, digits)
  const hex = `${Date.now().toString(16).padStart(12, '0')}7${random(3)}b${random(15)}`
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

function timeOf(eventId: string): string {
  return new Date(parseInt(eventId.replace('-', '').slice(0, 12), 16)).toISOString()
}

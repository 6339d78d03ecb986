// What the demo world's callers may do, and what becomes of whatever they claim: the design, told a second time.
// It knows nothing of the chapters' SQL, so where the two agree, both follow the design.

import { orgs, people } from './demo.ts'

export type Uuid = string
/** How the API refuses; the message is compared where clients branch on it. */
export type Answer = { status: number, code: string, message?: string }

/** Somebody at the door: who they are by their credentials, and what they have a role on. */
export type Caller = {
  name: string
  /** The database role that the credentials stand for; none where the door stays shut. */
  role: 'anon' | 'authenticated' | 'service_role' | null
  /** The person who acts; none where the credentials stand for nobody. */
  actor: Uuid | null
  apiKey: Uuid | null
  /** The orgs with all their apps, and the single apps, that the caller may read. */
  orgs: Uuid[]
  apps: string[]
  /** How the RPCs turn the caller away. */
  refused?: Answer
}

/** The apps, each with the org that owns it. */
export const apps: Record<string, Uuid> = {
  'com.acme.app': orgs.acme,
  'com.acme.beta': orgs.acme,
  'com.evil.app': orgs.evil,
  'com.demo.app': orgs.demo,
}

export const apiKeys = {
  acmeAdmin: '20000000-0000-4000-8000-000000000001',
  demoApp: '20000000-0000-4000-8000-000000000002',
  revoked: '20000000-0000-4000-8000-000000000003',
  expired: '20000000-0000-4000-8000-000000000004',
}

const unauthenticated = { status: 401, code: 'PT401', message: 'unauthenticated' }
const invalidApiKey = { status: 401, code: 'PT401', message: 'invalid_api_key' }
const badToken = { status: 401, code: 'PGRST301', message: 'No suitable key or wrong key type' }
const noToken = { status: 401, code: 'PGRST301', message: 'Expected 3 parts in JWT' }
const expiredToken = { status: 401, code: 'PGRST303', message: 'JWT expired' }

const nobody = { actor: null, apiKey: null, orgs: [], apps: [] }
const person = (name: keyof typeof people, rights: Partial<Caller>): Caller =>
  ({ ...nobody, name, role: 'authenticated', actor: people[name], ...rights })
const key = (name: string, apiKey: Uuid, rights: Partial<Caller>): Caller =>
  ({ ...nobody, name, role: 'anon', actor: people.ada, apiKey, ...rights })
const turnedAway = (name: string, role: Caller['role'], refused: Answer): Caller => ({ ...nobody, name, role, refused })

/** Everybody who calls in the tests. tests/callers.ts has their credentials. */
export const callers: Caller[] = [
  person('ada', { orgs: [orgs.acme, orgs.demo] }),
  person('bob', { orgs: [orgs.acme] }),
  person('cyd', { apps: ['com.acme.app'] }),
  person('eve', { orgs: [orgs.evil] }),
  person('nik', {}),
  person('bob', { name: 'bob with an API key of ada\'s', orgs: [orgs.acme] }),
  key('the key acme_admin', apiKeys.acmeAdmin, { orgs: [orgs.acme] }),
  key('the key acme_admin as capgkey', apiKeys.acmeAdmin, { orgs: [orgs.acme] }),
  key('the key demo_app', apiKeys.demoApp, { apps: ['com.demo.app'] }),
  { ...nobody, name: 'the service role', role: 'service_role', orgs: Object.values(orgs) },
  turnedAway('the key revoked', 'anon', invalidApiKey),
  turnedAway('the key expired', 'anon', invalidApiKey),
  turnedAway('an unknown key', 'anon', invalidApiKey),
  turnedAway('the publishable key alone', 'anon', unauthenticated),
  turnedAway('a JWT of nobody', 'authenticated', unauthenticated),
  turnedAway('a JWT that is garbage', null, noToken),
  turnedAway('a JWT without a signature', null, noToken),
  turnedAway('a JWT of another secret', null, badToken),
  turnedAway('a JWT that has expired', null, expiredToken),
]

/** What an event says about who it is by and for. */
export type Claim = {
  org_id?: string
  user_id?: string
  app_id?: string
  tracking_version?: number | string
}

/** The part of a row that nobody may forge. */
export type Row = {
  scope_id: Uuid
  org_id: Uuid | null
  actor_id: Uuid | null
  app_id: string | null
  api_key_id: Uuid | null
  source: 'client' | 'service'
  tracking_version: number
  tag_org_id: Uuid | null
}

/** Either the row that is written, with a word from each warning; or the refusal, and no row. */
export type Outcome = { row: Row, warnings: string[] } | { refused: Answer }

const noPermission = { refused: { status: 403, code: 'PT403', message: 'no_permission' } }
const invalidPayload = { refused: { status: 400, code: 'PT400', message: 'invalid_payload' } }
const missingOrg = { refused: { status: 400, code: 'PT400', message: 'missing_org_id' } }
const unsupportedVersion = { refused: { status: 400, code: 'PT400', message: 'unsupported_tracking_version' } }

const isService = (caller: Caller) => caller.role === 'service_role'
const isUuid = (text: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)
const mayReadOrg = (caller: Caller, org: string) => caller.orgs.includes(org)
const mayReadApp = (caller: Caller, app: string) =>
  app in apps && (caller.apps.includes(app) || mayReadOrg(caller, apps[app]!))

/** May the caller speak for the org, or for the app of the org? */
const maySpeakFor = (caller: Caller, org: string, app: string | undefined) =>
  app ? mayReadApp(caller, app) && apps[app] === org : mayReadOrg(caller, org)

/** What track_event makes of a claim, and track_events of each. */
export function track(caller: Caller, claim: Claim): Outcome {
  if (caller.refused) return { refused: caller.refused }
  const version = Number(claim.tracking_version ?? 1)
  if (version !== 1 && version !== 2) return unsupportedVersion
  const org = claim.org_id?.toLowerCase()
  const user = claim.user_id?.toLowerCase()
  if (isService(caller)) return trackAsService(caller, version, org, user, claim.app_id)
  if (version === 1) return trackVersion1(caller, org, user, claim.app_id)
  const warnings = user ? ['user_id'] : []
  return group(caller, caller.actor, { version, org, app: claim.app_id, warnings })
}

// Version 1 has one field for the person or the org, and knows no org_id.
function trackVersion1(caller: Caller, org?: string, user?: string, app?: string): Outcome {
  const warnings = org ? ['org_id'] : []
  if (!user || user === caller.actor) return written(caller, caller.actor, { version: 1, warnings })
  return group(caller, caller.actor, { version: 1, org: user, app, warnings })
}

// The service role names the actor and the org, in either version; in version 1, where no org is named, user_id
// is the org that has the id, if there is one.
function trackAsService(caller: Caller, version: number, org?: string, user?: string, app?: string): Outcome {
  if (user && !isUuid(user)) return invalidPayload
  const userIsOrg = version === 1 && !org && user && mayReadOrg(caller, user)
  return group(caller, userIsOrg || !user ? null : user, { version, org: userIsOrg ? user : org, app, warnings: [] })
}

type Said = { version: number, org?: string | undefined, app?: string | undefined, warnings: string[] }

function group(caller: Caller, actor: Uuid | null, said: Said): Outcome {
  const { org, app, warnings } = said
  if (org) return maySpeakFor(caller, org, app) ? written(caller, actor, said) : noPermission
  if (app && mayReadApp(caller, app)) return written(caller, actor, { ...said, org: apps[app]! })
  if (!actor) return missingOrg
  return written(caller, actor, { version: said.version, warnings: app ? [...warnings, 'app'] : warnings })
}

function written(caller: Caller, actor: Uuid | null, { version, org, app, warnings }: Said): Outcome {
  const row: Row = {
    scope_id: (org ?? actor)!,
    org_id: org ?? null,
    actor_id: actor,
    app_id: app || null,
    api_key_id: caller.apiKey,
    source: isService(caller) ? 'service' : 'client',
    tracking_version: version,
    tag_org_id: org ?? null,
  }
  return { row, warnings }
}

/** A column that is the database's, named by a client, and whether with the value that the database would put there. */
export type Named = { column: 'actor_id' | 'api_key_id' | 'source' | 'received_at' | 'txid' | 'epoch', value: unknown, isTrue: boolean }

/** A direct insert: whom it is for, and in what else it lies: about its scope, or in a tag. */
export type Insert = {
  org_id?: string
  app_id?: string
  tracking_version?: number | string
  named?: Named
  lie?: { scope_id: Uuid } | { tags: { org_id: Uuid } }
}

/** What a direct insert into the log comes to, under the chapters' grants or with everything granted to clients. */
export function insert(caller: Caller, claim: Insert, grants: 'chapters' | 'all'): Outcome {
  const { app_id: app, named, lie } = claim
  const org = claim.org_id?.toLowerCase()
  const service = isService(caller)
  const denied: Outcome = { refused: { status: caller.role === 'anon' ? 401 : 403, code: '42501' } }
  if (caller.role === null) return { refused: caller.refused! }
  if (named && !mayName(named, service, grants)) return denied
  if (org && !isUuid(org)) return { refused: { status: 400, code: '22P02' } }
  if (!service && !mayWrite(caller, org, app, named)) return denied
  const actor = service ? named?.value as Uuid | undefined ?? null : caller.actor
  const version = Number(claim.tracking_version ?? 2)
  const isReserved = org === '00000000-0000-0000-0000-000000000000'
  const isSound = (org || actor) && !isReserved && (org || !app) && version <= 2 && !lie
  if (!isSound) return { refused: { status: 400, code: '23514' } }
  const outcome = written(caller, actor, { version, org, app, warnings: [] })
  return 'row' in outcome ? { ...outcome, row: { ...outcome.row, tag_org_id: null } } : outcome
}

// The service role may name the actor; what else is the database's stays so for it too.
const mayName = (named: Named, service: boolean, grants: 'chapters' | 'all') =>
  service ? named.column === 'actor_id' : grants === 'all'

// The table groups nothing by itself: an app goes with its org.
function mayWrite(caller: Caller, org?: string, app?: string, named?: Named): boolean {
  if (!caller.actor || named?.isTrue === false) return false
  return org ? maySpeakFor(caller, org, app) : !app
}


// What they may see -------------------------------------------------------------------------------------

/** A key is lent to a machine: it reads for its orgs and apps, and not what its owner did for nobody. */
export function seesEvent(caller: Caller, row: Pick<Row, 'org_id' | 'app_id' | 'actor_id'>): boolean {
  if (isService(caller)) return true
  if (row.org_id === null) return caller.actor !== null && row.actor_id === caller.actor && caller.apiKey === null
  return mayReadOrg(caller, row.org_id) || (row.app_id !== null && mayReadApp(caller, row.app_id))
}

export const seesOrg = (caller: Caller, org: Uuid): boolean => isService(caller) || mayReadOrg(caller, org)

/** Also the builds of the app. */
export const seesApp = (caller: Caller, app: string): boolean => isService(caller) || mayReadApp(caller, app)

/** People see the keys that they own; keys see none. */
export const seesApiKey = (caller: Caller, owner: Uuid): boolean =>
  isService(caller) || (caller.actor === owner && caller.apiKey === null)

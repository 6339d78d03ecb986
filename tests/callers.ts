import { createHmac } from 'node:crypto'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import ws from 'ws'
import { jwtSecret, publishableKey } from '../src/api.ts'
import { people } from './demo.ts'
import { callers, type Caller } from './matrix-model.ts'
import type { World } from './world.ts'

/** supabase-js with the credentials that the caller's name promises. */
export type Client = SupabaseClient

const inAnHour = Math.floor(Date.now() / 1000) + 3600
const ada = { sub: people.ada, role: 'authenticated', aud: 'authenticated' }

/** What each caller of the model shows at the door. */
const credentials: Record<string, (world: World) => Client | Promise<Client>> = {
  'ada': (world) => world.signIn('ada@acme.test'),
  'bob': (world) => world.signIn('bob@acme.test'),
  'cyd': (world) => world.signIn('cyd@acme.test'),
  'eve': (world) => world.signIn('eve@evil.test'),
  'nik': (world) => world.signIn('nik@nowhere.test'),
  'bob with an API key of ada\'s': (world) => withBoth(world, 'bob@acme.test', 'as_local_acme_admin'),
  'the key acme_admin': (world) => world.withKey('as_local_acme_admin'),
  'the key acme_admin as capgkey': (world) => openWith(world, { capgkey: 'as_local_acme_admin' }),
  'the key demo_app': (world) => world.withKey('as_local_demo_app'),
  'the key revoked': (world) => world.withKey('as_local_revoked'),
  'the key expired': (world) => world.withKey('as_local_expired'),
  'an unknown key': (world) => world.withKey('as_local_unknown'),
  'the service role': (world) => world.service(),
  'the publishable key alone': (world) => world.anon(),
  'a JWT of nobody': (world) => withToken(world, sign({ role: 'authenticated', exp: inAnHour })),
  'a JWT that is garbage': (world) => withToken(world, 'garbage'),
  'a JWT without a signature': (world) => withToken(world, sign({ ...ada, exp: inAnHour }, null)),
  'a JWT of another secret': (world) => withToken(world, sign({ ...ada, exp: inAnHour }, 'another-secret-of-at-least-32-characters')),
  'a JWT that has expired': (world) => withToken(world, sign({ ...ada, exp: inAnHour - 7200 })),
}

/** Gives every caller of the model a client. */
export async function openClients(world: World): Promise<Map<Caller, Client>> {
  const clients = new Map<Caller, Client>()
  for (const caller of callers) clients.set(caller, await credentials[caller.name]!(world))
  return clients
}

/** The caller of that name in the model. */
export function callerNamed(name: string): Caller {
  const found = callers.find((caller) => caller.name === name)
  if (!found) throw new Error(`The model has no caller named ${name}.`)
  return found
}

const withToken = (world: World, token: string): Client => openWith(world, { authorization: `Bearer ${token}` })

/** A client of somebody who signed in, and sends an API key as well. */
export async function withBoth(world: World, email: string, key: string): Promise<Client> {
  const { data } = await (await world.signIn(email)).auth.getSession()
  return openWith(world, { authorization: `Bearer ${data.session!.access_token}`, 'x-api-key': key })
}

/** A client with the publishable key and headers of one's own. */
function openWith(world: World, headers: Record<string, string>): Client {
  return createClient(world.api.url, publishableKey, {
    global: { headers },
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: ws as never },
  })
}

/** Signs a JWT as Supabase's Auth does; without a secret it says that it needs no signature. */
function sign(claims: object, secret: string | null = jwtSecret): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const signed = `${encode({ alg: secret === null ? 'none' : 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${signed}.${secret === null ? '' : createHmac('sha256', secret).update(signed).digest('base64url')}`
}

/** The time inside a UUIDv7. */
export function timeOf(eventId: string): string {
  return new Date(parseInt(eventId.slice(0, 8) + eventId.slice(9, 13), 16)).toISOString()
}

/** Does something with each item, at most eight at a time, and answers in the items' order. */
export async function forEach<T, R>(items: T[], work: (item: T) => PromiseLike<R>): Promise<R[]> {
  const results: R[] = []
  const waiting = items.entries()
  const worker = async () => {
    for (const [index, item] of waiting) results[index] = await work(item)
  }
  await Promise.all(Array.from({ length: 8 }, worker))
  return results
}

// What the local Data API owes to PostgREST, where @supabase/lite does otherwise: see src/postgrest.ts.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { publishableKey, secretKey } from '../src/api.ts'
import { elementsOf, membersOf, objectOf } from '../src/json.ts'
import { createWorld, signToken, type World } from './world.ts'

let world: World

beforeAll(async () => {
  world = await createWorld()
  await world.sql.unsafe(`
    create table public.notes (
      id      integer primary key,
      label   text check (label <> 'bad'),
      done    boolean,
      data    jsonb,
      made_at timestamptz,
      bytes   bytea,
      headers jsonb default current_setting('request.headers')::jsonb,
      path    text default current_setting('request.path'),
      role    text default current_user
    );
    alter table public.notes enable row level security;
    create policy "everybody does everything" on public.notes using (true) with check (true);
    create table public.secrets (id integer);
    alter table public.secrets enable row level security;
    revoke all on public.secrets from anon, authenticated, service_role;
    create function public.kind_of(v2 jsonb) returns text language sql volatile
      as $$ select concat_ws(' ', jsonb_typeof(v2), left(v2::text, 60)) $$;
    create function public.length_of(words text) returns integer language sql volatile as $$ select length(words) $$;
    create function public.claims() returns jsonb language sql volatile
      as $$ select current_setting('request.jwt.claims')::jsonb $$;
    create function public.fail(code text) returns void language plpgsql volatile
      as $$ begin raise exception using errcode = code, message = 'm', detail = 'd', hint = 'h'; end $$;
    create function public.raise_plainly() returns void language plpgsql volatile
      as $$ begin raise exception 'plainly'; end $$;
    create schema if not exists analytics;
    grant usage on schema analytics to anon, authenticated, service_role;
    create view analytics.labels with (security_invoker = true) as select id, label from public.notes;
    grant select on analytics.labels to anon, authenticated, service_role;
    create function analytics.echo(
      steps text[], within interval default '7 days', by text default 'actor', org uuid default null,
      since timestamptz default null, tags jsonb default '{}', periods integer default 12)
      returns table (step bigint, event text, share numeric, seconds double precision, "window" interval, subject text,
        orgs uuid[], since_at timestamptz, day date, at timestamp, kinds jsonb, nothing numeric, n integer)
      language sql stable
      as $$
        select s.step, s.event, round(1.0 / s.step, 4), 1.5 * s.step, within, by, array_remove(array[org], null), since,
               since::date, since at time zone 'UTC', tags, null::numeric, periods
        from   unnest(steps) with ordinality as s (event, step)
      $$;
    create function analytics.who() returns text language sql stable as $$ select current_user::text $$;
    create schema hidden;
    create view hidden.labels as select id, label from public.notes;
    grant usage on schema hidden to anon, authenticated, service_role;
    grant select on hidden.labels to anon, authenticated, service_role;
    create function hidden.who() returns text language sql stable as $$ select current_user::text $$;
  `).simple()
})
afterAll(() => world.close())

async function send(path: string, body: string | Buffer, headers: Record<string, string> = {}) {
  const response = await fetch(`${world.api.url}${path}`, {
    method: 'POST', headers: { apikey: publishableKey, 'content-type': 'application/json', ...headers }, body })
  const text = await response.text()
  return { status: response.status, body: text === '' ? null : JSON.parse(text) }
}

const kindOf = (json: string) => send('/rest/v1/rpc/kind_of', `{"v2":${json}}`)
const insert = (row: string) => send('/rest/v1/notes', row, { prefer: 'return=representation' })
const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)

describe('arguments reach the database as they were sent', () => {
  test.each([
    ['{"a": 1}', 'object {"a": 1}'],
    ['[1, "a"]', 'array [1, "a"]'],
    ['"hello"', 'string "hello"'],
    ['"{\\"a\\": 1}"', 'string "{\\"a\\": 1}"'],
    ['true', 'boolean true'],
    ['12345678901234567890.5', 'number 12345678901234567890.5'],
    ['{"__proto__": {"constructor": 1}}', 'object {"__proto__": {"constructor": 1}}'],
    ['null', ''],
  ])('%s', async (json, kind) => {
    expect(await kindOf(json)).toEqual({ status: 200, body: kind })
  })

  test('nested 5,000 deep', async () => {
    expect(await kindOf(nested(5000))).toMatchObject({ status: 200 })
  })

  test('20 MB', async () => {
    expect(await kindOf(JSON.stringify('x'.repeat(20_000_000)))).toMatchObject({ status: 200 })
  })
})

describe('what Postgres cannot take is 400, and the connection lives on', () => {
  test.each([
    ['a NUL', '{"a":"\\u0000"}', '22P05'],
    ['a NUL in a name', '{"\\u0000":1}', '22P05'],
    ['a lone surrogate', '{"a":"\\ud800"}', '22P02'],
    ['100,000 arrays in each other', nested(100_000), '54001'],
    ['100,000 objects in each other', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`, '54001'],
    ['JSON that ends early', '{"a":', 'PGRST102'],
  ])('%s', async (_, json, code) => {
    expect(await kindOf(json)).toMatchObject({ status: 400, body: { code } })
    expect(await kindOf('1')).toEqual({ status: 200, body: 'number 1' })
  })

  test('bytes that are no UTF-8', async () => {
    const body = Buffer.concat([Buffer.from('{"v2":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
    expect(await send('/rest/v1/rpc/kind_of', body)).toMatchObject({ status: 400, body: { code: 'PGRST102' } })
  })

  test.each([['a NUL', '"a\\u0000"', '22021'], ['a lone surrogate', '"a\\ud800"', '22P02']])(
    '%s in a text argument', async (_, words, code) => {
      expect(await send('/rest/v1/rpc/length_of', `{"words":${words}}`)).toMatchObject({ status: 400, body: { code } })
    })

  test.each(['[]', '[{"v2":1}]', '"x"', 'null', '5'])('a body that is no object, %s, names no argument', async (body) => {
    expect(await send('/rest/v1/rpc/kind_of', body)).toMatchObject({ status: 404 })
  })

  test('a path with a broken escape is 404', async () => {
    expect(await send('/rest/v1/%E0%A4%A', '{}')).toMatchObject({ status: 404, body: { code: 'PGRST125' } })
  })
})

describe('columns reach the database as they were sent', () => {
  test.each([
    ['{"id":1,"data":"{}"}', { data: '{}' }],
    ['{"id":2,"data":[1,"a"]}', { data: [1, 'a'] }],
    ['{"id":3,"label":{"a":1}}', { label: '{"a":1}' }],
    ['{"id":4,"label":5}', { label: '5' }],
    ['{"id":5,"done":"true"}', { done: true }],
    ['{"id":6,"done":false}', { done: false }],
    ['{"id":8,"bytes":"\\\\x00ff"}', { bytes: '\\x00ff' }],
    ['{"id":"7","made_at":"2026-11-05T09:30:00Z"}', { id: 7, made_at: '2026-11-05T09:30:00+00:00' }],
  ])('%s', async (row, expected) => {
    expect(await insert(row)).toMatchObject({ status: 201, body: [expected] })
  })

  test.each([
    ['{"id":[1]}', '22P02'],
    ['{"id":true}', '22P02'],
    ['{"id":9,"made_at":5}', '22007'],
    ['{"id":9,"made_at":{}}', '22007'],
    ['{"id":9,"done":"perhaps"}', '22P02'],
    ['{"id":9,"label":"bad"}', '23514'],
    ['{"id":9,"label":"\\u0000"}', '22021'],
    [`{"id":9,"data":${nested(100_000)}}`, '54001'],
  ])('%.40s is refused as Postgres refuses it', async (row, code) => {
    expect(await insert(row)).toMatchObject({ status: 400, body: { code } })
  })

  test('of many rows, and in an update', async () => {
    const client = world.anon()
    await client.from('notes').insert([{ id: 21, data: 'a' }, { id: 22, data: 'b' }]).throwOnError()
    const { data } = await client.from('notes').update({ data: '3', label: 'changed' }).in('id', [21, 22]).select('data, label')
    expect(data).toEqual([{ data: '3', label: 'changed' }, { data: '3', label: 'changed' }])
  })
})

describe('every request tells the database of itself', () => {
  test('also one to a table: headers, path and role', async () => {
    const { body } = await send('/rest/v1/notes', '{"id":31}', { 'x-api-key': 'abc', prefer: 'return=representation' })
    expect(body[0]).toMatchObject({ headers: { 'x-api-key': 'abc' }, path: '/notes', role: 'anon' })
  })

  test('claims hold the role, also where nobody is signed in', async () => {
    expect((await world.anon().rpc('claims')).data).toEqual({ role: 'anon' })
    expect((await world.service().rpc('claims')).data).toEqual({ role: 'service_role' })
    const ada = await world.signIn('ada@acme.test')
    expect((await ada.rpc('claims')).data).toMatchObject({ role: 'authenticated', email: 'ada@acme.test' })
    const roleless = world.withToken(signToken({ sub: '10000000-0000-4000-8000-000000000001' }))
    expect((await roleless.rpc('claims')).data).toMatchObject({ role: 'anon' })
  })
})

describe('the schema of analysts is served beside public', () => {
  const org = 'a0000000-0000-4000-8000-000000000001'
  const row = {
    step: 1, event: 'A, "b"', share: 1, seconds: 1.5, window: '7 days', subject: 'actor', orgs: [], since_at: null,
    day: null, at: null, kinds: {}, nothing: null, n: 12,
  }
  const analytics = () => world.anon().schema('analytics')

  test('a function takes some of its arguments by name, and answers rows as to_json writes them', async () => {
    expect((await analytics().rpc('echo', { steps: ['A, "b"'] })).data).toEqual([row])
    const args = { steps: ['A', 'B', 'C'], within: '36 hours', by: 'org', org, since: '2026-11-05T10:30:00+01:00', tags: { a: ['1'] }, periods: 3 }
    const { data } = await analytics().rpc('echo', args)
    expect(data).toHaveLength(3)
    expect(data[2]).toEqual({
      step: 3, event: 'C', share: 0.3333, seconds: 4.5, window: '36:00:00', subject: 'org', orgs: [org], since_at: '2026-11-05T09:30:00+00:00',
      day: '2026-11-05', at: '2026-11-05T09:30:00', kinds: { a: ['1'] }, nothing: null, n: 3 })
    expect(data[1].share).toBe(0.5)
  })

  test('a call may name arguments that are null, may be a GET, and what it answers be filtered, ordered and cut', async () => {
    expect((await analytics().rpc('echo', { steps: ['A, "b"'], org: null, since: null })).data).toEqual([row])
    expect((await analytics().rpc('echo', { steps: ['A', 'B'] }, { get: true })).data).toMatchObject([{ event: 'A' }, { event: 'B' }])
    const { data } = await analytics().rpc('echo', { steps: ['A', 'B', 'C'] })
      .select('event, share').neq('event', 'B').order('step', { ascending: false }).limit(1)
    expect(data).toEqual([{ event: 'C', share: 0.3333 }])
  })

  test('a view is read as a table is', async () => {
    await world.anon().from('notes').insert([{ id: 41, label: 'one' }, { id: 42, label: 'two' }]).throwOnError()
    const { data, count } = await analytics().from('labels').select('*', { count: 'exact' }).in('id', [41, 42]).order('id').range(1, 1)
    expect({ data, count }).toEqual({ data: [{ id: 42, label: 'two' }], count: 2 })
  })

  test.each(['hidden', 'tracking', 'auth', 'nowhere'])('a schema that is not exposed, %s, is refused', async (schema) => {
    const client = world.service().schema(schema as 'public')
    for (const answer of [await client.rpc('who'), await client.from('labels').select()]) {
      expect(answer).toMatchObject({ status: 406, error: { code: 'PGRST106' } })
    }
    expect(await client.from('labels').insert({ id: 1 })).toMatchObject({ status: 406, error: { code: 'PGRST106' } })
  })

  test('nothing of one schema is found in another', async () => {
    expect(await world.anon().rpc('who')).toMatchObject({ status: 404, error: { code: 'PGRST202' } })
    expect(await world.anon().from('labels').select()).toMatchObject({ status: 404, error: { code: 'PGRST205' } })
    expect(await analytics().from('notes').select()).toMatchObject({ status: 404, error: { code: 'PGRST205' } })
    expect(await analytics().rpc('echo', { nobody: 1 })).toMatchObject({ status: 404, error: { code: 'PGRST202' } })
  })
})

describe('errors have the status that PostgREST gives them', () => {
  test.each([
    ['23514', 400], ['23503', 409], ['28000', 403], ['40001', 500], ['53300', 503], ['57014', 500],
    ['PT429', 429], ['22012', 400], ['25006', 405], ['XX000', 500], ['AB001', 400],
  ])('SQLSTATE %s is %i, with detail and hint', async (code, status) => {
    expect(await send('/rest/v1/rpc/fail', JSON.stringify({ code }))).toEqual({
      status, body: { code, message: 'm', details: 'd', hint: 'h' } })
  })

  test('a plain exception is 400', async () => {
    expect(await send('/rest/v1/rpc/raise_plainly', '{}')).toMatchObject({ status: 400, body: { code: 'P0001', message: 'plainly' } })
  })

  test('42501 is 401 for anon and 403 for others', async () => {
    expect((await world.anon().from('secrets').select()).status).toBe(401)
    expect((await world.service().from('secrets').select()).status).toBe(403)
  })
})

describe('the API gives no rights away', () => {
  test('it grants nothing when it starts', async () => {
    await world.anon().from('notes').select()
    expect(await world.sql`
      select has_table_privilege('anon', 'public.secrets', 'select') as secrets,
             has_table_privilege('anon', 'auth.users', 'select') as users,
             has_table_privilege('anon', 'tracking.settings', 'select') as settings`,
    ).toEqual([{ secrets: false, users: false, settings: false }])
  })

  const claims = { sub: '10000000-0000-4000-8000-000000000001', role: 'authenticated', exp: Math.floor(Date.now() / 1000) + 60 }
  test.each([
    ['no JWT', 'garbage'],
    ['expired', signToken({ ...claims, exp: 1 })],
    ['signed by somebody else', signToken(claims, 'another-secret-of-at-least-32-characters')],
    ['unsigned', `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.`],
    ['for a role that does not exist', signToken({ ...claims, role: 'nobody' })],
  ])('a token that is %s is 401, with the secret key too', async (_, token) => {
    for (const apikey of [publishableKey, secretKey]) {
      expect(await send('/rest/v1/rpc/claims', '{}', { apikey, authorization: `Bearer ${token}` })).toMatchObject({ status: 401 })
    }
  })

  test.each(['postgres', 'pg_read_all_data'])('a role that PostgREST\'s login may not take on, %s, is refused', async (role) => {
    expect(await world.withToken(signToken({ ...claims, role })).rpc('claims')).toMatchObject({
      status: 403, error: { code: '42501', message: `permission denied to set role "${role}"` } })
  })

  test.each([['no key', ''], ['a wrong key', 'sb_publishable_wrong']])('%s is 401, also from this machine', async (_, apikey) => {
    expect(await send('/rest/v1/rpc/claims', '{}', { apikey })).toMatchObject({ status: 401 })
  })

  test('nothing but the two APIs and the dashboard is served', async () => {
    for (const path of ['/_system/info', '/storage/v1/bucket', '/package.json']) {
      expect((await fetch(`${world.api.url}${path}`)).status).toBe(404)
    }
  })
})

describe('JSON is split without being read', () => {
  test('into members', () => {
    expect([...membersOf(' { "a" : [1, {"x":"}\\"]"} ] , "b":-1.50e3,"c\\u0064":null } ')]).toEqual(
      [['a', '[1, {"x":"}\\"]"} ]'], ['b', '-1.50e3'], ['cd', 'null']])
    expect([...membersOf('{}')]).toEqual([])
    expect([...membersOf('{"a":1,"a":"\\\\"}')]).toEqual([['a', '"\\\\"']])
  })

  test('into members and back is the same object', () => {
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(undefined, 1, '\t'), (object, space) => {
      expect(JSON.parse(objectOf(membersOf(JSON.stringify(object, null, space))))).toEqual(JSON.parse(JSON.stringify(object)))
    }))
  })

  test.each([
    ['', 'it breaks off'], ['{', 'it breaks off'], ['{"a', 'it breaks off'], ['{"a"', 'it breaks off'], ['{"a":', 'it breaks off'],
    ['{"a":"\\"}', 'it breaks off'], ['{"a":[{}', 'it breaks off'], ['{"a":1', 'it breaks off'], ['{"a":1,', 'it breaks off'],
    ['nonsense', '"n" at character 1'], ['[1]', '"[" at character 1'], ['{a:1}', '"a" at character 2'], ['{"a" 1}', '"1" at character 6'],
    ['{"a":}', '"}" at character 6'], ['{"a":]}', '"]" at character 6'], ['{"a":1 2}', '"2" at character 8'], ['{,}', '"," at character 2'],
    ['{"a":1,}', '"}" at character 8'], ['{"a":1},{"b":2}', '"," at character 8'],
  ])('into members where it is no object is refused: %s', (text, message) => {
    expect(() => membersOf(text)).toThrow(new SyntaxError(message))
  })

  test('into elements', () => {
    expect(elementsOf(' [ ] ')).toEqual([])
    expect(elementsOf('[1,"a,]", {"b":[2]} , true]')).toEqual(['1', '"a,]"', '{"b":[2]}', 'true'])
  })
})

import type { Sql } from 'postgres'
import { misconfigured, type SinkContext, type SinkSettings } from './sink.ts'

/** What a process is told from without. */
export type Environment = Record<string, string | undefined>

/** The environment variable, or name in the Vault, of a sink's own secret: `ACTORSCOPE_SINK_POSTHOG_EU_API_KEY`. */
function secretName(sink: string, secret: string): string {
  return `ACTORSCOPE_SINK_${sink}_${secret}`.toUpperCase().replaceAll('-', '_')
}

/** The name that a vendor's secret usually has, such as `POSTHOG_API_KEY`. A webhook has none: each has its own. */
function usualSecretName(kind: string, secret: string): string | undefined {
  return kind === 'webhook' ? undefined : `${kind}_${secret}`.toUpperCase()
}

/**
 * Reads the secrets of a sink. Each is looked for under the sink's own name, `ACTORSCOPE_SINK_<SINK>_<SECRET>`,
 * then under the vendor's usual one, such as `POSTHOG_API_KEY`; in the environment first, then in Supabase's
 * Vault, where the database has one and lets the caller read it. Nothing is kept: a changed secret is found by
 * calling again.
 *
 * @returns a secret by its name, such as `api_key`; undefined where there is none.
 */
export async function loadSecrets(
  { sink, kind }: SinkSettings, environment: Environment, sql: Sql,
): Promise<(name: string) => string | undefined> {
  const prefixes = [secretName(sink, ''), usualSecretName(kind, '')].filter((prefix) => prefix !== undefined)
  const vault = await readVault(sql, prefixes)
  const find = (name: string | undefined) =>
    name === undefined ? undefined : environment[name]?.trim() || vault.get(name)
  return (name) => find(secretName(sink, name)) || find(usualSecretName(kind, name))
}

async function readVault(sql: Sql, prefixes: string[]): Promise<Map<string, string>> {
  // By the catalog: to look the view up by its name is refused where the schema is closed.
  const [vault] = await sql<{ readable: boolean }[]>`
    select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable
    from   pg_class as c
    join   pg_namespace as n on n.oid = c.relnamespace
    where  n.nspname = 'vault'
    and    c.relname = 'decrypted_secrets'`
  if (!vault?.readable) return new Map()
  const secrets = await sql<{ name: string, secret: string | null }[]>`
    select s.name, btrim(s.decrypted_secret, E' \\t\\r\\n') as secret
    from   vault.decrypted_secrets as s
    where  exists (select from unnest(${prefixes}::text[]) as p (prefix) where starts_with(s.name, p.prefix))`
  return new Map(secrets.map(({ name, secret }) => [name, secret ?? '']))
}

/** @throws {SinkError} where the sink has no such secret. */
export function requireSecret(batch: SinkSettings, context: SinkContext, name: string): string {
  const secret = context.secret(name)
  if (secret) return secret
  const names = [secretName(batch.sink, name), usualSecretName(batch.kind, name)].filter(Boolean).join(' or ')
  const wayOut = `put it into the worker's environment, or into Supabase's Vault, as ${names}`
  throw misconfigured(batch, `has no ${name}: ${wayOut}`)
}


// Keeping them ---------------------------------------------------------------------------------------

/** The values in an environment that are secret by their names; and a database's URL, and the password in it. */
export function secretsIn(environment: Environment, databaseUrl: string): string[] {
  const values = Object.entries(environment)
    .filter(([name]) => /SECRET|TOKEN|PASSWORD|_KEY$/.test(name)).map(([, value]) => value ?? '')
  const password = URL.canParse(databaseUrl) ? new URL(databaseUrl).password : ''
  return [...values, databaseUrl, password, unescaped(password)]
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // a lone %
  }
}

/**
 * Takes secrets out of a text: as they are, and as they look in JSON or in an URL. What is shorter than six
 * characters keeps nobody out, and may be part of any word.
 */
export function redact(text: string, secrets: Iterable<string>): string {
  let redacted = text
  for (const secret of secrets) {
    if (secret.length < 6) continue
    for (const form of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)]) {
      redacted = redacted.replaceAll(form, '***')
    }
  }
  return redacted
}

import type { Sql } from 'postgres'
import { secretName, usualSecretName, type SinkSettings } from './sink.ts'

/**
 * Reads the secrets of a sink. Each is looked for under the sink's own name, `ACTORSCOPE_SINK_<SINK>_<SECRET>`,
 * then under the vendor's usual one, such as `POSTHOG_API_KEY`; in the environment first, then in Supabase's
 * Vault, where the database has one and lets the caller read it. Nothing is kept: a changed secret is found by
 * calling again.
 *
 * @returns a secret by its name, such as `api_key`; undefined where there is none.
 */
export async function loadSecrets(
  { sink, kind }: SinkSettings, environment: Record<string, string | undefined>, sql: Sql,
): Promise<(name: string) => string | undefined> {
  const vault = await readVault(sql, [secretName(sink, ''), usualSecretName(kind, '')])
  const find = (name: string | undefined) => name === undefined ? undefined : environment[name]?.trim() || vault.get(name)
  return (name) => find(secretName(sink, name)) || find(usualSecretName(kind, name))
}

async function readVault(sql: Sql, prefixes: (string | undefined)[]): Promise<Map<string, string>> {
  const [vault] = await sql<{ readable: boolean | null }[]>`
    select has_schema_privilege('vault', 'usage') and has_table_privilege(to_regclass('vault.decrypted_secrets'), 'select') as readable
    where  to_regclass('vault.decrypted_secrets') is not null`
  if (!vault?.readable) return new Map()
  const secrets = await sql<{ name: string, secret: string | null }[]>`
    select s.name, btrim(s.decrypted_secret, E' \\t\\r\\n') as secret
    from   vault.decrypted_secrets as s
    where  exists (select from unnest(${prefixes.filter((prefix) => prefix !== undefined)}::text[]) as p (prefix) where starts_with(s.name, p.prefix))`
  return new Map(secrets.map(({ name, secret }) => [name, secret ?? '']))
}

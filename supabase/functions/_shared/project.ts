/** The Supabase project whose Data API is asked. */
export type Project = {
  /** Such as https://abc.supabase.co */
  url: string
  /** The publishable key, or the legacy anon key: lets a request in, and gives it no rights. */
  publishableKey: string
  /** How long an answer is waited for, in ms; 20,000. */
  timeout?: number
}

/**
 * Reads the project from the environment that Supabase gives every function.
 *
 * @throws {Error} where a variable is missing
 */
export function readProject(variable: (name: string) => string | undefined): Project {
  const url = variable('SUPABASE_URL')
  const publishableKey = defaultOf(variable('SUPABASE_PUBLISHABLE_KEYS')) ?? variable('SUPABASE_ANON_KEY')
  if (url && publishableKey) return { url: url.replace(/\/+$/, ''), publishableKey }
  throw new Error('SUPABASE_URL, and SUPABASE_PUBLISHABLE_KEYS or SUPABASE_ANON_KEY, must be set.')
}

/** A project may have several keys: {"default": "sb_publishable_…", "web": "sb_publishable_…"}. */
function defaultOf(keys: string | undefined): string | undefined {
  if (!keys) return undefined
  const byName: Record<string, string> = JSON.parse(keys)
  return byName.default ?? Object.values(byName)[0]
}

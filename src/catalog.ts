/**
 * What a tag may be: a kind of value, or the list of the strings it may be (a closed enum).
 * `integer` is a whole number; `json` is anything at all.
 */
export type TagType = 'string' | 'number' | 'integer' | 'boolean' | 'json' | readonly string[]

/** The tags of an event by name. A name that ends in `?` may be left out: `{ step: 'string', 'duration_ms?': 'integer' }`. */
export type TagTypes = { readonly [tag: string]: TagType }

/**
 * Whom an event is about: the `actor` alone, never grouped by the tracker; an `org`, which the tracker's `group` names
 * or the call does; or an `app`, which the call names and whose owner the database looks up.
 */
export type Scope = 'actor' | 'org' | 'app'

/** One kind of event. */
export type EventType = {
  /** The family it belongs to; `default` where none is given. */
  readonly channel?: string
  /** An emoji for people and sinks. */
  readonly icon?: string
  /** Whom it is about; `org` where none is given. */
  readonly scope?: Scope
  /** What it tells, in a sentence. */
  readonly description?: string
  /** The tags it has; none where none are given. Apps and orgs are named by `app` and `org` instead: `app_id` and `org_id` need no entry. */
  readonly tags?: TagTypes
}

/** Kinds of events by name. A name that ends in `*` stands for all that begin so: `onboarding-step-*`. */
export type Catalog = { readonly [event: string]: EventType }

/**
 * Declares kinds of events, so that `track` knows their tags. Catalogs are plain objects: spread them into one.
 *
 * @example
 * const catalog = defineCatalog({
 *   'Report Exported': { channel: 'reports', icon: '📄', scope: 'org', tags: { format: ['csv', 'pdf'], 'rows?': 'integer' } },
 * })
 */
export function defineCatalog<const C extends Catalog>(catalog: C): C {
  return catalog
}

/** Finds an event's kind: by its name, else by the longest `*` name that it begins with. */
export function eventType(catalog: Catalog, event: string): EventType | undefined {
  const kind = kindOf(catalog, event)
  return kind === undefined ? undefined : catalog[kind]
}

/**
 * Says whether a row of the log is an event of a kind, with the tags that the kind has; then its tags are typed.
 * Rows from before a kind was declared, or from clients without the catalog, may have others.
 *
 * @param kind a name of the catalog as it is written there, with its `*` where it has one
 *
 * @example
 * const { data } = await supabase.from('events').select()
 * for (const row of data ?? []) {
 *   if (isEvent(catalog, 'Report Exported', row)) console.log(row.tags.format, row.tags.rows ?? 0)
 * }
 */
export function isEvent<C extends Catalog, K extends keyof C & string>(
  catalog: C, kind: K, row: { readonly event: string, readonly tags: unknown },
): row is { readonly event: Expand<K>, readonly tags: TagsOf<C, K> & Whereabouts } {
  return kindOf(catalog, row.event) === kind && faultInTags(catalog, row.event, row.tags) === undefined
}

/**
 * Finds what is wrong with an event's tags, the first by the tag's name, as the sentence that the database refuses them
 * with where it holds the kind (`enforce`). It names the tag, and never its value.
 *
 * @returns undefined where nothing is, and for events of no kind: those may have any tags
 */
export function faultInTags(catalog: Catalog, event: string, tags: unknown = {}): string | undefined {
  const type = eventType(catalog, event)
  if (!type) return undefined
  if (!isTags(tags)) return 'tags is not an object.'
  const types = new Map(Object.entries(type.tags ?? {}))
  const needed = [...types.keys()].filter((name) => !name.endsWith('?'))
  const sent = Object.keys(tags).filter((name) => tags[name] !== undefined && !['app_id', 'app-id', 'org_id'].includes(name))
  for (const name of [...new Set([...needed, ...sent])].sort()) {
    const fault = faultInTag(types, name, Object.hasOwn(tags, name) ? tags[name] : undefined)
    if (fault) return `The tag "${name.slice(0, 100)}" of "${event}" ${fault}.`
  }
  return undefined
}

function kindOf(catalog: Catalog, event: string): string | undefined {
  if (Object.hasOwn(catalog, event)) return event
  return Object.keys(catalog)
    .filter((name) => name.endsWith('*') && event.startsWith(name.slice(0, -1)))
    .sort((a, b) => b.length - a.length)[0]
}

function isTags(tags: unknown): tags is { readonly [tag: string]: unknown } {
  return typeof tags === 'object' && tags !== null && !Array.isArray(tags)
}

/** What is wrong with a tag, to follow its name. Null, like undefined, is no value. */
function faultInTag(types: ReadonlyMap<string, TagType>, name: string, value: unknown): string | undefined {
  const type = name.endsWith('?') ? undefined : types.get(name) ?? types.get(`${name}?`)
  if (type === undefined) return 'is unknown'
  if (value === undefined || value === null) return types.has(name) ? 'is missing' : undefined
  if (typeof type !== 'string') {
    const isChoice = typeof value === 'string' && type.includes(value)
    return isChoice ? undefined : `is none of ${type.map((choice) => JSON.stringify(choice)).join(', ').slice(0, 500)}`
  }
  if (type === 'integer') return Number.isInteger(value) ? undefined : 'is not an integer'
  return type === 'json' || typeof value === type ? undefined : `is not a ${type}`
}

/** The names that a catalog allows; any, where there is no catalog. */
export type EventName<C extends Catalog> = string extends keyof C ? string : Expand<keyof C & string>

/** The kind of an event in a catalog: by its name, else by the longest `*` name that it begins with. */
export type EventTypeOf<C extends Catalog, N extends string> = N extends keyof C ? C[N] : C[Longest<Pattern<C, N>>]

/** The tags of an event in a catalog; any, where there is no catalog. */
export type TagsOf<C extends Catalog, N extends string> = string extends keyof C
  ? { readonly [tag: string]: unknown }
  : EventTypeOf<C, N> extends { readonly tags: infer T extends TagTypes } ? Tags<T> : { readonly [tag: string]: never }

/** The values that tags of these types have. Those that may be left out may be null as well, which is the same. */
export type Tags<T extends TagTypes> = Flat<
  & { readonly [K in keyof T as K extends `${string}?` ? never : K]: TagValue<T[K]> }
  & { readonly [K in keyof T as K extends `${infer Name}?` ? Name : never]?: TagValue<T[K]> | null }
>

/** The tags that name an app and an org: every event of the log may have them. */
type Whereabouts = { readonly app_id?: string, readonly org_id?: string }

type Expand<N extends string> = N extends `${infer Start}*` ? `${Start}${string}` : N

/** The `*` names of a catalog that a name begins with. */
type Pattern<C extends Catalog, N extends string> = {
  [P in keyof C & string]: P extends `${infer Start}*` ? (N extends `${Start}${string}` ? P : never) : never
}[keyof C & string]

/** Of `*` names that one name begins with, the one that begins with all of the others. */
type Longest<P extends string, All extends string = P> = P extends `${infer Start}*`
  ? [Extract<Exclude<All, P>, `${Start}${string}`>] extends [never] ? P : never
  : never

// Shown to people as one object, not as an intersection of two.
type Flat<T> = { [K in keyof T]: T[K] }

type TagValue<T extends TagType> =
  T extends readonly (infer Choice)[] ? Choice
    : T extends 'string' ? string
      : T extends 'number' | 'integer' ? number
        : T extends 'boolean' ? boolean : unknown

import { defineCatalog } from './catalog.ts'
import {
  analysisResults, commandErrorCategories, onboardingErrorCategories, uploadFailureCategories,
} from './error-categories.ts'

export { defineCatalog, eventType, faultInTags, isEvent } from './catalog.ts'
export type { Catalog, EventName, EventType, EventTypeOf, Scope, Tags, TagsOf, TagType, TagTypes } from './catalog.ts'
export {
  analysisErrorStatus, analysisResult, commandErrorCategory, onboardingErrorCategory, uploadFailureCategory,
} from './error-categories.ts'
export type {
  AnalysisResult, CommandErrorCategory, OnboardingErrorCategory, UploadFailureCategory,
} from './error-categories.ts'

// The families of events that come with the package: docs/events.md says what each tag means. Nothing in them is free
// text but ids and names that programs make up: `journey_id`, `job_id`, `command_path`, `flags`. (Tags are spelled out
// event by event: a bundler keeps whatever is spread, as getters might run.)

const platforms = ['ios', 'android'] as const
const buildModes = ['debug', 'release'] as const

/** The steps of the builder's onboarding: those of both platforms, then iOS's, then Android's. */
export const onboardingSteps = [
  'welcome', 'resume-prompt', 'credentials-exist', 'backing-up', 'saving-credentials', 'detecting-ci-secrets',
  'ci-secrets-setup', 'ci-secrets-target-select', 'ask-ci-secrets', 'checking-ci-secrets', 'confirm-ci-secret-overwrite',
  'uploading-ci-secrets', 'ci-secrets-failed', 'ask-github-actions-setup', 'confirm-secrets-push', 'ask-export-env',
  'exporting-env', 'confirm-env-export-overwrite', 'overwrite-and-export-env', 'pick-package-manager',
  'pick-build-script', 'pick-build-script-custom', 'preview-workflow-file', 'view-workflow-diff',
  'writing-workflow-file', 'ask-build', 'requesting-build', 'ai-analysis-prompt', 'ai-analysis-running',
  'ai-analysis-result', 'ai-analysis-result-scroll', 'build-complete', 'no-platform', 'error', 'support-confirm',
  'support-log-view', 'support-uploading',

  'platform-select', 'adding-platform', 'setup-method-select', 'import-scanning', 'import-distribution-mode',
  'import-pick-identity', 'import-pick-profile', 'import-validating-all-certs', 'import-checking-apple-cert',
  'import-no-match-recovery', 'import-portal-explanation', 'import-provide-profile-path', 'import-create-profile-only',
  'import-export-warning', 'import-exporting', 'p8-source-select', 'asc-key-generating', 'asc-key-created',
  'api-key-instructions', 'p8-method-select', 'input-p8-path', 'input-key-id', 'input-issuer-id', 'verifying-key',
  'verify-app', 'creating-certificate', 'cert-limit-prompt', 'revoking-certificate', 'creating-profile',
  'duplicate-profile-prompt', 'deleting-duplicate-profiles',

  'keystore-method-select', 'keystore-explainer', 'keystore-existing-path', 'keystore-existing-picker',
  'keystore-existing-store-password', 'keystore-existing-detecting-alias', 'keystore-existing-alias-select',
  'keystore-existing-alias', 'keystore-existing-key-password', 'keystore-new-alias', 'keystore-new-password-method',
  'keystore-new-store-password', 'keystore-new-key-password', 'keystore-new-cn', 'keystore-generating',
  'service-account-method-select', 'sa-json-existing-path', 'sa-json-existing-picker', 'sa-json-validating',
  'sa-json-validation-failed', 'google-sign-in', 'google-sign-in-running', 'play-developer-id-input',
  'gcp-projects-loading', 'gcp-projects-select', 'gcp-project-create-name', 'android-package-select',
  'android-app-verify', 'gcp-setup-running',
] as const
export type OnboardingStep = (typeof onboardingSteps)[number]

/** How far people get in setting up native builds. */
export const onboardingEvents = /* @__PURE__ */ defineCatalog({
  'Builder Onboarding Step': {
    channel: 'builder-onboarding', icon: '🧭', scope: 'app',
    description: 'Somebody has come to a step of the onboarding.',
    tags: {
      journey_id: 'string', step: onboardingSteps, platform: platforms,
      'duration_ms?': 'integer', 'duration_step?': onboardingSteps, 'error_category?': onboardingErrorCategories,
    },
  },
  'Builder Onboarding Action': {
    channel: 'builder-onboarding', icon: '🧭', scope: 'app',
    description: 'Somebody has made a choice in the onboarding, or a check of it has ended.',
    tags: {
      journey_id: 'string', step: onboardingSteps, platform: platforms,
      action: [
        'resume_prompt_decision', 'android_sa_method_selected', 'android_sa_validation_recovery_selected',
        'android_sa_validation_result',
      ],
      'choice?': ['continue', 'restart'],
      'method?': ['existing', 'generate'],
      'recovery_action?': ['retry', 'save_anyway', 'fallback_oauth'],
      'result?': ['success', 'failure'],
      'validation_kind?': ['shape-error', 'token-error', 'no-app-access', 'network-error'],
    },
  },
  'Builder Onboarding Quit': {
    channel: 'builder-onboarding', icon: '🚪', scope: 'app',
    description: 'Somebody has left the onboarding before its end.',
    tags: { journey_id: 'string', 'platform?': platforms, 'last_step?': onboardingSteps, 'duration_ms?': 'integer' },
  },
})

/** Uploads of projects to the builder. */
export const uploadEvents = /* @__PURE__ */ defineCatalog({
  'Builder Upload Started': {
    channel: 'build-lifecycle', icon: '⬆️', scope: 'app',
    description: 'The upload of a project to the builder has begun.',
    tags: { job_id: 'string', upload_size_bytes: 'integer', 'platform?': platforms, 'build_mode?': buildModes },
  },
  'Builder Upload Succeeded': {
    channel: 'build-lifecycle', icon: '📦', scope: 'app',
    description: 'The builder has the project.',
    tags: {
      job_id: 'string', upload_size_bytes: 'integer', 'platform?': platforms, 'build_mode?': buildModes,
      'upload_duration_seconds?': 'integer',
    },
  },
  'Builder Upload Failed': {
    channel: 'build-lifecycle', icon: '🚫', scope: 'app',
    description: 'The upload of a project has failed for good.',
    tags: {
      job_id: 'string', upload_size_bytes: 'integer', 'platform?': platforms, 'build_mode?': buildModes,
      'upload_duration_seconds?': 'integer', failure_category: uploadFailureCategories,
    },
  },
})

/** AI analyses of failed builds: what people choose, what they see of it, and what the backend did. */
export const analysisEvents = /* @__PURE__ */ defineCatalog({
  'CLI AI Build Analysis Choice': {
    channel: 'build-lifecycle', icon: '🤖', scope: 'app',
    description: 'Somebody, or a flag, has chosen what to do about a failed build.',
    tags: {
      job_id: 'string',
      choice: ['capgo_ai', 'local_ai', 'skip', 'auto_upload', 'retry'],
      triggered_by: ['menu', 'ci_flag', 'onboarding'],
      'platform?': platforms,
    },
  },
  'CLI AI Build Analysis Result': {
    channel: 'build-lifecycle', icon: '🤖', scope: 'app',
    description: 'A client has its answer to a request for an analysis.',
    tags: { job_id: 'string', result: analysisResults, 'error_status?': 'integer', 'platform?': platforms },
  },
  'AI Build Analysis Result': {
    channel: 'build-lifecycle', icon: '🤖', scope: 'app',
    description: 'The backend is done with a request for an analysis. Sent by the service role in the name of who asked.',
    tags: {
      job_id: 'string',
      result: [
        'success', 'already_analyzed', 'invalid_state', 'unauthorized', 'builder_error', 'config_error', 'logs_too_big',
        'mid_stream_error', 'refunded', 'upgrade_required',
      ],
      logs_bytes: 'integer',
      'duration_ms?': 'integer',
    },
  },
})

/** Native builds as the program that asked for them sees them, and the credentials that they need. */
export const nativeBuilderEvents = /* @__PURE__ */ defineCatalog({
  'Build requested': {
    channel: 'native-builder', icon: '🏗️', scope: 'app',
    description: 'A program asks for a native build.',
    tags: { platform: platforms, 'journey_id?': 'string' },
  },
  'Build succeeded': {
    channel: 'native-builder', icon: '✅', scope: 'app',
    description: 'A program has seen its build succeed.',
    tags: { platform: platforms, 'status?': ['succeeded'], 'time?': 'number', 'journey_id?': 'string' },
  },
  'Build failed': {
    channel: 'native-builder', icon: '❌', scope: 'app',
    description: 'A program has seen its build end in any other way.',
    tags: {
      platform: platforms, 'status?': ['failed', 'timed_out', 'cancelled', 'expired', 'released', 'unknown'],
      'time?': 'number', 'journey_id?': 'string',
    },
  },
  'Credentials saved': {
    channel: 'credentials', icon: '🔐', scope: 'app',
    description: 'Somebody has saved the credentials to sign and publish an app.',
    tags: { platform: platforms, 'storage?': ['local', 'global'] },
  },
})

/** What people do in the dashboard. */
export const dashboardEvents = /* @__PURE__ */ defineCatalog({
  'onboarding-step-*': {
    channel: 'onboarding-v2', icon: '👶', scope: 'org',
    description: 'Somebody has come to a step of a first app: copy-command, wait-for-app, discover-your-dashboard.',
  },
  'onboarding-step-done': {
    channel: 'onboarding-v2', icon: '👶', scope: 'org',
    description: 'Somebody has been through all steps of a first app.',
  },
  'onboarding-step-invite-teammate': {
    channel: 'onboarding-v2', icon: '👥', scope: 'org',
    description: 'Somebody has invited a teammate.',
  },
  'onboarding-alternative-send-invite': {
    channel: 'onboarding-v2', icon: '👶', scope: 'org',
    description: 'Somebody is about to invite a teammate instead of going on alone.',
  },
  'onboarding-create-demo-app': {
    channel: 'onboarding-v2', icon: '👶', scope: 'org',
    description: 'Somebody asks for a demo app.',
  },
  'onboarding-build-step-*': {
    channel: 'onboarding-build', icon: '👶', scope: 'org',
    description: 'Somebody has come to a step of a first build: setup-ios, setup-android, request-build, wait-for-build, build-completed.',
  },
  'onboarding-bundle-step-*': {
    channel: 'onboarding-bundle', icon: '👶', scope: 'org',
    description: 'Somebody has come to a step of a first bundle: copy-command, wait-for-bundle, discover-your-bundle.',
  },
  'demo-onboarding-*': {
    channel: 'demo-onboarding', icon: '🧪', scope: 'org',
    description: 'Somebody plays with the demo: step-1-opened, step-2-update-selected, global-step-changed and the like.',
    tags: {
      'step?': 'integer', 'from?': 'integer', 'to?': 'integer',
      'action?': ['confetti', 'bg-color', 'title'], 'can_continue?': 'boolean',
    },
  },
  'User visit': {
    channel: 'usage', icon: '💳', scope: 'org',
    description: 'Somebody looks at the plans or at what was used.',
  },
  'trial_banner_*': {
    channel: 'usage', icon: '💳', scope: 'org',
    description: 'The banner for those on trial: shown, cta_clicked.',
    tags: { 'trial_days_left?': 'integer' },
  },
})

/** What people do on the command line. `trackCommand` sends the first three by itself. */
export const commandEvents = /* @__PURE__ */ defineCatalog({
  'CLI Command Invoked': {
    channel: 'cli-usage', icon: '⚡', scope: 'actor',
    description: 'A command is about to run.',
    tags: { command_path: 'string', flags: 'string', flags_count: 'integer', positional_arg_count: 'integer' },
  },
  'CLI Command Succeeded': {
    channel: 'cli-usage', icon: '✅', scope: 'actor',
    description: 'A command has ended well.',
    tags: { command_path: 'string', duration_ms: 'integer' },
  },
  'CLI Command Failed': {
    channel: 'cli-usage', icon: '❌', scope: 'actor',
    description: 'A command has ended badly, was interrupted, or was not understood.',
    tags: { command_path: 'string', error_category: commandErrorCategories, exit_code: 'integer', 'duration_ms?': 'integer' },
  },
  'Doctor Ran': {
    channel: 'cli-usage', icon: '👨‍⚕️', scope: 'actor',
    description: 'Somebody has had a project checked.',
    tags: { is_outdated: 'boolean', dependency_count: 'integer', outdated_count: 'integer' },
  },
  'User CLI login': {
    channel: 'user-login', icon: '✅', scope: 'actor',
    description: 'Somebody has signed in on the command line.',
  },
  'App Created': {
    channel: 'app', icon: '🆕', scope: 'app',
    description: 'Somebody has created an app.',
    tags: { 'source?': ['cli-direct', 'onboarding', 'mcp'] },
  },
  'App Updated': {
    channel: 'app', icon: '📝', scope: 'app',
    description: 'Somebody has changed an app.',
  },
  'Apps Listed': {
    channel: 'app', icon: '📋', scope: 'actor',
    description: 'Somebody has looked at a list of apps.',
    tags: { app_count: 'integer' },
  },
})

/** All families together. A program that sends one of them bundles less with that one alone. */
export const events = /* @__PURE__ */ (() => ({
  ...onboardingEvents, ...uploadEvents, ...analysisEvents, ...nativeBuilderEvents, ...dashboardEvents, ...commandEvents,
}))()

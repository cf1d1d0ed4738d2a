-- The login of api, worker and beat, made together with a new volume. `migrate` grants it what they need.
\getenv password ORCHESTRATOR_APP_PASSWORD
CREATE ROLE orchestrator_app LOGIN PASSWORD :'password';
